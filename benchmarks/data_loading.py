"""Time per image on one core: ours against PIL with torchvision.transforms.v2.

Both read the same JPEG files and make the same kind of sample: decoded, mirrored with probability
one half, scaled to 240×320, boxes moved along, stacked in batches of 8. Ours stays uint8, since the
device normalises it; the peer is measured twice, as uint8 too and (as its recipes do) turned into
normalised floats. They take turns in one process, so that whatever else the machine does hits all;
the ratio of each round is taken before the median.

    python benchmarks/data_loading.py --images FOLDER --annotations COCO.json
    python benchmarks/data_loading.py            # 64 generated JPEGs of 480×640
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.coco import CocoConfig
from retina.datasets.loading import collate


def generate(folder: Path, count: int) -> Path:
    """JPEGs of smooth noise, about as hard to decode as photographs, and their annotations."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(count):
        coarse = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        noise = generator.normal(0, 8, (480, 640, 3))
        image = np.clip(cv2.resize(coarse, (640, 480)) + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": index, "file_name": f"{index}.jpg", "height": 480, "width": 640})
        for x, y, w, h in generator.uniform((0, 0, 20, 20), (400, 400, 80, 80), (13, 4)).tolist():
            box = {"id": len(annotations), "image_id": index, "category_id": 1, "area": w * h}
            annotations.append({**box, "bbox": [x, y, w, h], "iscrowd": 0})
    categories = [{"id": 1, "name": "noise"}]
    path = folder / "annotations.json"
    tree = {"images": images, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(tree))
    return path


def ours(dataset: FolderDataset, size: tuple[int, int]) -> Callable[[int], object]:
    """An epoch through batch_sampler, data set, augmentation and collation."""
    dataset.augmentation = AugmentationConfig(preset="flip").build()
    batch_sampler = BatchSampler(
        image_sizes=dataset.image_sizes, batch_size=8, seed=0, sizes=[size], stretch=True
    )

    def run(epoch: int) -> object:
        for batch in batch_sampler.epoch(epoch):
            last = collate([dataset[request] for request in batch])
        return last

    return run


def theirs(
    dataset: FolderDataset, size: tuple[int, int], *, normalised: bool
) -> Callable[[int], object]:
    """The same epoch the way torchvision's references do it."""
    entries = [
        (dataset.file_path(index), size, dataset.targets(index).boxes)
        for index, size in enumerate(dataset.image_sizes.tolist())
    ]
    steps = [v2.RandomHorizontalFlip(0.5), v2.Resize(size), v2.PILToTensor()]
    if normalised:
        steps += [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    transform = v2.Compose(steps)

    def run(epoch: int) -> object:
        torch.manual_seed(epoch)
        order = torch.randperm(len(entries)).tolist()
        for start in range(0, len(order), 8):
            samples = []
            for index in order[start : start + 8]:
                path, canvas, boxes = entries[index]
                image = Image.open(path).convert("RGB")
                target = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(canvas))
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
            images, annotations = arguments.images, arguments.annotations
        else:
            images, annotations = Path(folder), generate(Path(folder), 64)
        dataset = CocoConfig(images=images, annotations=annotations).build()
        size = (arguments.size[0], arguments.size[1])
        runs = {
            "ours": ours(dataset, size),
            "PIL + v2, uint8": theirs(dataset, size, normalised=False),
            "PIL + v2, float": theirs(dataset, size, normalised=True),
        }
        for run in runs.values():
            run(0)  # warm the file cache and the imports
        times: dict[str, list[float]] = {name: [] for name in runs}
        for epoch in range(1, arguments.rounds + 1):
            for name in list(runs) if epoch % 2 else list(runs)[::-1]:
                start = time.process_time()
                runs[name](epoch)
                times[name].append((time.process_time() - start) / len(dataset) * 1e3)
    print(
        f"{len(dataset)} images, {arguments.rounds} rounds; ms of one core per image, ratio to ours"
    )
    for name, values in times.items():
        ratios = sorted(b / a for a, b in zip(times["ours"], values, strict=True))
        print(
            f"{name:16} {statistics.median(values):6.2f} ms   {statistics.median(ratios):5.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
