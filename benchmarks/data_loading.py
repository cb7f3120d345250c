"""Time per image on one core: ours against PIL with torchvision.transforms.v2.

Both read the same JPEG files and make the same kind of sample: decoded, mirrored with probability
one half, scaled into 240×320, boxes moved along, uint8 tensor. They take turns in one process, so
that whatever else the machine does hits both; the ratio of each round is taken before the median.

    python benchmarks/data_loading.py --images FOLDER --annotations COCO.json
    python benchmarks/data_loading.py            # 64 generated JPEGs of 480×640
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.datasets.loading import collate
from retina.datasets.planning import BatchPlanner
from retina.structures import Categories, GroundTruth, IntArray, Targets

Entry = tuple[Path, tuple[int, int], np.ndarray]
"""Path, (height, width), boxes (N, 4) x1 y1 x2 y2."""


def generated(folder: Path, count: int) -> list[Entry]:
    """JPEGs of smooth noise, about as hard to decode as photographs."""
    generator = np.random.default_rng(0)
    entries = []
    for index in range(count):
        coarse = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        noise = generator.normal(0, 8, (480, 640, 3))
        image = np.clip(cv2.resize(coarse, (640, 480)) + noise, 0, 255).astype(np.uint8)
        path = folder / f"{index}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        corners = generator.uniform(0, 400, (13, 2))
        sides = generator.uniform(20, 80, (13, 2))
        entries.append((path, (480, 640), np.concatenate([corners, corners + sides], axis=1)))
    return entries


def from_coco(images: Path, annotations: Path) -> list[Entry]:
    """The entries of a COCO file."""
    tree = json.loads(annotations.read_text())
    boxes = defaultdict(list)
    for annotation in tree["annotations"]:
        x, y, w, h = annotation["bbox"]
        boxes[annotation["image_id"]].append([x, y, x + w, y + h])
    return [
        (
            images / image["file_name"],
            (image["height"], image["width"]),
            np.array(boxes[image["id"]], dtype=np.float64).reshape(-1, 4),
        )
        for image in tree["images"]
    ]


class Files(DetectionDataset):
    """JPEG files with boxes, decoded as the project's data sets do."""

    categories = Categories.from_names(["object"])
    report = DatasetReport(num_images=0, num_boxes=0, num_crowd=0, num_empty_images=0)

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.augmentation = AugmentationConfig(preset="flip").build()

    @property
    def image_ids(self) -> IntArray:
        """Positions."""
        return np.arange(len(self._entries))

    @property
    def image_sizes(self) -> IntArray:
        """As given."""
        return np.array([size for _, size, _ in self._entries])

    def __len__(self) -> int:
        return len(self._entries)

    def file_path(self, index: int) -> str:
        """The JPEG."""
        return str(self._entries[index][0])

    def targets(self, index: int) -> Targets:
        """Not needed here."""
        raise NotImplementedError

    def ground_truth(self) -> GroundTruth:
        """Not needed here."""
        raise NotImplementedError

    def load(self, index: int) -> AnnotatedImage:
        """Decode with OpenCV."""
        path, _, boxes = self._entries[index]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        count = len(boxes)
        return AnnotatedImage(
            np.asarray(image, dtype=np.uint8),
            boxes.astype(np.float32),
            np.zeros(count, np.int64),
            np.zeros(count, bool),
        )


def ours(entries: Sequence[Entry], size: tuple[int, int]) -> Callable[[int], object]:
    """An epoch through planner, data set, augmentation and collation."""
    dataset = Files(entries)
    planner = BatchPlanner(
        image_sizes=dataset.image_sizes, batch_size=8, seed=0, sizes=[size], stretch=True
    )

    def run(epoch: int) -> object:
        for batch in planner.epoch(epoch):
            last = collate([dataset[request] for request in batch])
        return last

    return run


def theirs(entries: Sequence[Entry], size: tuple[int, int]) -> Callable[[int], object]:
    """The same epoch the way torchvision's references do it."""
    transform = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.Resize(size), v2.PILToTensor()])

    def run(epoch: int) -> object:
        torch.manual_seed(epoch)
        order = torch.randperm(len(entries)).tolist()
        for start in range(0, len(order), 8):
            samples = []
            for index in order[start : start + 8]:
                path, canvas, boxes = entries[index]
                image = Image.open(path).convert("RGB")
                target = tv_tensors.BoundingBoxes(
                    torch.from_numpy(boxes).float(), format="XYXY", canvas_size=canvas
                )
                samples.append(transform(image, {"boxes": target}))
            last = torch.stack([image for image, _ in samples])
        return last

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images and arguments.annotations:
            entries = from_coco(arguments.images, arguments.annotations)
        else:
            entries = generated(Path(folder), 64)
        size = (arguments.size[0], arguments.size[1])
        runs = {"ours": ours(entries, size), "PIL + v2": theirs(entries, size)}
        for run in runs.values():
            run(0)  # warm the file cache and the imports
        times: dict[str, list[float]] = {name: [] for name in runs}
        for epoch in range(1, arguments.rounds + 1):
            for name in list(runs) if epoch % 2 else list(runs)[::-1]:
                start = time.process_time()
                runs[name](epoch)
                times[name].append((time.process_time() - start) / len(entries) * 1e3)
    for name, values in times.items():
        print(f"{name:9} {statistics.median(values):6.2f} ms of one core per image")
    ratios = sorted(b / a for a, b in zip(times["ours"], times["PIL + v2"], strict=True))
    print(
        f"ratio     {statistics.median(ratios):6.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f} "
        f"in {len(ratios)} rounds, {len(entries)} images)"
    )


if __name__ == "__main__":
    main()
