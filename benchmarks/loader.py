"""Time per image on one core: our loader beside two that people write.

All read the same JPEG files and make the same kind of batch of 8: decoded, mirrored with
probability one half, scaled to 240×320, boxes moved along. Ours stays uint8, since the device
normalises it. The peers are data sets under PyTorch's loader, in this process as ours is:

    PIL + torchvision v2    PIL.Image, v2.RandomHorizontalFlip, v2.Resize
    cv2 + albumentations    cv2.imread, Resize, HorizontalFlip, ToTensorV2, BboxParams

`loader` has the peers as their recipes are: turned into normalised floats. `loader, uint8` leaves
that away, so that both do the same work. PIL filters before it shrinks, which ours does not;
`loader, uint8, same filter` asks torchvision for ours (antialias=False).

They take turns in one process, and the clock is the process's own, so that other work on the
machine does not count. Before that all images are made once without mirroring and compared: as
decoded, as scaled (in levels of 0 … 255) and by their boxes.

    python benchmarks/loader.py --images FOLDER --annotations COCO.json
    python benchmarks/loader.py            # 64 generated JPEGs of 480×640
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from comparisons import OURS, Row, alternate, machine, parse, parser_of, row, show
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.coco import CocoConfig
from retina.datasets.images import decode_image
from retina.datasets.loading import Collate, LoaderConfig
from retina.structures import SampleRequest, Size

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network for a newer one
import albumentations as A

PIL, CV2 = "PIL + torchvision v2", "cv2 + albumentations"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_SIZE = 8
DECODED_BOUND, BOX_BOUND = 1, 1e-2
EXACT, ROUNDED, FILTERED = 0.01, 0.5, 3.0
"""Bounds for the mean difference in levels: the same arithmetic, the same filter rounded otherwise,
and a filter before shrinking, which smooths noise."""


class Peer(Dataset[tuple[Tensor, Tensor]]):
    """The images and boxes of a set of ours, read and changed by other libraries.

    Args:
        dataset: of which files and boxes are taken.
        size: that every image is scaled to.
        mirror: how often an image is mirrored.
        normalised: give float32, normalised; else uint8.
    """

    def __init__(
        self, dataset: FolderDataset, size: Size, *, mirror: float = 0.5, normalised: bool
    ) -> None:
        self.normalised = normalised
        self.files = [dataset.file_path(index) for index in range(len(dataset))]
        self.boxes = [dataset.targets(index).boxes for index in range(len(dataset))]
        self.transform = self.make_transform(size, mirror)

    @abstractmethod
    def make_transform(self, size: Size, mirror: float) -> Callable[..., Any]:
        """Everything after decoding."""

    @abstractmethod
    def decode(self, path: str) -> Any:
        """The image of a file, in RGB, as the transform takes it."""

    def __len__(self) -> int:
        return len(self.files)


class PilPeer(Peer):
    """As torchvision's references do it."""

    filtered = True
    """Whether images are filtered before they are shrunk."""

    def make_transform(self, size: Size, mirror: float) -> Callable[..., Any]:
        """See `Peer`."""
        to_tensor, resize = v2.PILToTensor(), v2.Resize(size, antialias=self.filtered)
        # PIL always filters, torchvision's resizing of tensors does so where it is asked to.
        steps = [resize, to_tensor] if self.filtered else [to_tensor, resize]
        if self.normalised:
            steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        return v2.Compose([v2.RandomHorizontalFlip(mirror), *steps])

    def decode(self, path: str) -> Image.Image:
        """See `Peer`."""
        return Image.open(path).convert("RGB")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.decode(self.files[index])
        boxes = tv_tensors.BoundingBoxes(
            self.boxes[index], format="XYXY", canvas_size=(image.height, image.width)
        )
        changed, target = self.transform(image, {"boxes": boxes})
        return changed, target["boxes"]


class UnfilteredPilPeer(PilPeer):
    """The same with our filter."""

    filtered = False


class Cv2Peer(Peer):
    """As the examples of albumentations do it."""

    def make_transform(self, size: Size, mirror: float) -> Callable[..., Any]:
        """See `Peer`."""
        steps = [A.Resize(*size), A.HorizontalFlip(p=mirror)]
        if self.normalised:
            steps.append(A.Normalize(MEAN, STD))
        boxes = A.BboxParams(format="pascal_voc", label_fields=["labels"])
        return A.Compose([*steps, A.ToTensorV2()], bbox_params=boxes)

    def decode(self, path: str) -> npt.NDArray[np.uint8]:
        """See `Peer`."""
        return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        boxes = self.boxes[index].numpy()
        labels = np.zeros(len(boxes), dtype=np.int64)
        changed = self.transform(image=self.decode(self.files[index]), bboxes=boxes, labels=labels)
        return changed["image"], torch.as_tensor(changed["bboxes"]).reshape(-1, 4)


COMPARISONS: tuple[tuple[str, str, type[Peer], bool, float], ...] = (
    ("loader", PIL, PilPeer, True, FILTERED),
    ("loader", CV2, Cv2Peer, True, EXACT),
    ("loader, uint8", PIL, PilPeer, False, FILTERED),
    ("loader, uint8", CV2, Cv2Peer, False, EXACT),
    ("loader, uint8, same filter", PIL, UnfilteredPilPeer, False, ROUNDED),
)
"""Name, peer, its data set, whether it normalises, and how far images may be apart on average."""


def generate(folder: Path, num_images: int) -> Path:
    """JPEGs of smooth noise, about as hard to decode as photographs, and their annotations."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(num_images):
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


def epochs_of_ours(dataset: FolderDataset, size: Size) -> Callable[[], None]:
    """Each call is an epoch through batch sampler, data set, augmentation and collation."""
    dataset.augmentation = AugmentationConfig(preset="flip").build()
    sampler = BatchSampler(
        image_sizes=dataset.image_sizes,
        batch_size=BATCH_SIZE,
        seed=0,
        sizes=[size],
        stretch=True,
    )
    numbers = count()

    def run() -> None:
        batches = sampler.epoch(next(numbers))
        for _ in LoaderConfig().build(dataset, batches, Collate(size_divisor=32), num_workers=0):
            pass

    return run


def epochs_of_peer(peer: Peer) -> Callable[[], None]:
    """Each call is an epoch; boxes stay a list, since images have different numbers of them."""

    def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
        return default_collate([image for image, _ in samples]), [boxes for _, boxes in samples]

    loader = DataLoader(peer, BATCH_SIZE, shuffle=True, collate_fn=collate)

    def run() -> None:
        for _ in loader:
            pass

    return run


def differences(dataset: FolderDataset, size: Size, peer: Peer) -> dict[str, float]:
    """Between ours and a peer that does not mirror, over all images.

    Returns:
        the largest difference of a decoded level, the mean and the largest of a scaled one, and the
        largest of a box in pixels.
    """
    decoded, means, largest, boxes = [0.0], [], [0.0], [0.0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for index in range(len(dataset)):
        pixels = decode_image(Path(dataset.file_path(index))).astype(np.int16)
        theirs = np.asarray(peer.decode(peer.files[index]))
        decoded.append(float(np.abs(pixels - theirs).max()))
        sample = dataset[
            SampleRequest(index=index, seed=0, max_size=size, stretch=True, augment=False)
        ]
        image, found = peer[index]
        levels = (image * std + mean) * 255 if peer.normalised else image.float()
        apart = (sample.image.float() - levels).abs()
        means.append(float(apart.mean()))
        largest.append(float(apart.max()))
        boxes += (sample.targets.boxes - found).abs().flatten().tolist()
    return {
        "decoded_level": max(decoded),
        "scaled_level_mean": sum(means) / len(means),
        "scaled_level": max(largest),
        "box_px": max(boxes),
    }


def compare(dataset: FolderDataset, size: Size, rounds: int) -> list[Row]:
    """Measure everything."""
    runs = {OURS: epochs_of_ours(dataset, size)}
    for name, peer, kind, normalised, _ in COMPARISONS:
        runs[f"{name} {peer}"] = epochs_of_peer(kind(dataset, size, normalised=normalised))
    times = {
        name: [milliseconds / len(dataset) for milliseconds in found]
        for name, found in alternate(runs, rounds, warm_up=1, clock=time.process_time).items()
    }
    about = machine("pillow", "opencv-python-headless", "albumentations")
    rows = []
    for name, peer, kind, normalised, bound in COMPARISONS:
        still = kind(dataset, size, mirror=0.0, normalised=normalised)
        compared = differences(dataset, size, still)
        rows.append(
            row(
                name,
                peer,
                times[OURS],
                times[f"{name} {peer}"],
                equal=compared["decoded_level"] <= DECODED_BOUND
                and compared["scaled_level_mean"] <= bound
                and compared["box_px"] <= BOX_BOUND,
                compared={
                    **compared,
                    "bounds": f"{DECODED_BOUND}, mean {bound}, box {BOX_BOUND}",
                },
                setting=f"{len(dataset)} JPEGs to {size[0]}×{size[1]}, ms of a core an image",
                about=about,
            )
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=9)
    parser.set_defaults(threads=1)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    options = parse(parser)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        if options.images and options.annotations:
            images, annotations = options.images, options.annotations
        else:
            images = Path(folder)
            annotations = generate(images, 16 if options.quick else 64)
        dataset = CocoConfig(images=images, annotations=annotations).build()
        rows = compare(dataset, (options.size[0], options.size[1]), options.rounds)
    show(rows, as_json=options.json)


if __name__ == "__main__":
    main()
