"""Memory and time of opening a large COCO file: the peak, what stays, and what a worker adds.

A file with 10 boxes an image is generated, and one small image under every name. A process of its
own opens the set as a training does: the file is read and checked, every image is looked for, boxes
are repaired. Then a forked worker goes through targets and names of a hundred thousand images at
random, and says how much memory it has for itself alone, beyond that of a worker that looks at one
and the same image as often: what of the set is copied into each worker.

    python benchmarks/open_large_set.py                       # 100,000 images, 1,000,000 boxes
    python benchmarks/open_large_set.py --images 1000000      # 10 million boxes; 1.7 GB on disk
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from retina.datasets.dataset import DetectionDataset
from retina.datasets.formats.coco import CocoConfig

BOXES = 10
"""Of an image."""

LINKS = 30_000
"""Names of one file; systems allow 65,000."""

_LOOKS = 100_000


def generate(folder: Path, count: int, boxes_each: int = BOXES) -> Path:
    """The image files, and their annotations, whose path is given back."""
    images = folder / "images"
    for index in range(count):
        path = images / f"{index // 1000:05d}" / f"{index:012d}.png"
        if index % 1000 == 0:
            path.parent.mkdir(parents=True)
        if index % LINKS == 0:
            Image.new("RGB", (640, 480)).save(path)
            first = path
        else:
            os.link(first, path)
    path = folder / "annotations.json"
    generator = np.random.default_rng(0)
    with path.open("w") as file:
        file.write('{"categories": ')
        json.dump([{"id": number, "name": f"class {number}"} for number in range(1, 81)], file)
        file.write(', "images": [')
        for index in range(count):
            name = f"{index // 1000:05d}/{index:012d}.png"
            image = {"id": index, "file_name": name, "height": 480, "width": 640}
            file.write((", " if index else "") + json.dumps(image))
        file.write('], "annotations": [')
        for index in range(count):
            boxes = generator.uniform((0, 0, 20, 20), (400, 300, 200, 150), (boxes_each, 4))
            labels = generator.integers(1, 81, boxes_each).tolist()
            pairs = zip(boxes.round(2).tolist(), labels, strict=True)
            for number, (box, label) in enumerate(pairs):
                annotation = {
                    "id": index * boxes_each + number, "image_id": index, "category_id": label,
                    "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0,
                }  # fmt: skip
                file.write((", " if index or number else "") + json.dumps(annotation))
        file.write("]}")
    return path


def own_bytes(kind: str) -> int:
    """Of this process: ``Rss``, or ``Private_Dirty``, what it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) * 1024


def peak_bytes() -> int:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(dataset: DetectionDataset, num_images: int, pipe: Connection) -> None:
    """Look at some of so many images as a worker does, and say what memory that took."""
    before = own_bytes("Private_Dirty")
    for index in np.random.default_rng(0).integers(0, num_images, _LOOKS):
        dataset.targets(int(index))
        dataset.file_path(int(index))
    pipe.send(own_bytes("Private_Dirty") - before)


def worker_growth(dataset: DetectionDataset, num_images: int) -> int:
    """What a forked worker makes its own by looking at some of so many images, in bytes."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(dataset, num_images, theirs))
    worker.start()
    growth: int = ours.recv()
    worker.join()
    return growth


def measure(folder: Path, count: int) -> None:
    """Open the set, and print a line for each number."""
    before, started = own_bytes("Rss"), time.monotonic()
    dataset = CocoConfig(images=folder / "images", annotations=folder / "annotations.json").build()
    seconds, peak = time.monotonic() - started, peak_bytes() - before
    gc.collect()
    stays = own_bytes("Rss") - before
    growth = worker_growth(dataset, count) - worker_growth(dataset, 1)
    size = (folder / "annotations.json").stat().st_size
    print(f"{count:,} images, {dataset.report.num_boxes:,} boxes, file of {size / 1e6:,.0f} MB")
    print(f"opened in {seconds:.1f} s")
    print(f"at the peak {peak / 1e6:,.0f} MB, {peak / count:,.0f} bytes an image")
    print(f"what stays  {stays / 1e6:,.0f} MB, {stays / count:,.0f} bytes an image")
    print(f"a worker's own after {_LOOKS:,} looks {growth / 1e6:,.1f} MB")


def main() -> None:
    """Generate, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the set is, or is made and kept")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.folder, given.images)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "annotations.json").exists():
            generate(folder, given.images)
        words = [sys.executable, __file__, "--measure", "--folder", str(folder)]
        os.spawnv(os.P_WAIT, sys.executable, [*words, "--images", str(given.images)])


if __name__ == "__main__":
    main()
