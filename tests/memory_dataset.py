"""A data set without files: random images with given boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.structures import Categories, GroundTruth, IntArray, Size, Targets

Box = tuple[int, float, float, float, float]
"""Label, then the two corners in pixels."""


class MemoryDataset(DetectionDataset):
    """Images of noise; each has its own id, which counts down from 100.

    Args:
        boxes: of each image.
        size: (height, width) of all images.
        names: of the classes.
    """

    def __init__(
        self,
        boxes: Sequence[Sequence[Box]],
        *,
        size: Size = (64, 96),
        names: Sequence[str] = ("cat", "dog"),
    ) -> None:
        generator = np.random.default_rng(0)
        self._images = generator.integers(0, 256, (len(boxes), *size, 3), dtype=np.uint8)
        self._boxes = boxes
        self._categories = Categories.from_names(list(names))

    @property
    def categories(self) -> Categories:
        return self._categories

    @property
    def image_ids(self) -> IntArray:
        return 100 - np.arange(len(self))

    @property
    def image_sizes(self) -> IntArray:
        return np.array([self._images.shape[1:3]] * len(self))

    @property
    def report(self) -> DatasetReport:
        empty = sum(not boxes for boxes in self._boxes)
        return DatasetReport(len(self), sum(map(len, self._boxes)), 0, empty)

    def __len__(self) -> int:
        return len(self._images)

    def file_path(self, index: int) -> str:
        return f"memory/{index}"

    def targets(self, index: int) -> Targets:
        rows = torch.tensor(self._boxes[index], dtype=torch.float32).reshape(-1, 5)
        return Targets(
            boxes=rows[:, 1:],
            labels=rows[:, 0].long(),
            is_crowd=torch.zeros(len(rows), dtype=torch.bool),
        )

    def class_counts(self) -> tuple[int, ...]:
        labels = [box[0] for boxes in self._boxes for box in boxes]
        return tuple(labels.count(label) for label in range(len(self._categories)))

    def load(self, index: int) -> AnnotatedImage:
        targets = self.targets(index)
        return AnnotatedImage(
            image=self._images[index],
            boxes=targets.boxes.numpy(),
            labels=targets.labels.numpy(),
            is_crowd=targets.is_crowd.numpy(),
        )

    def ground_truth(self) -> GroundTruth:
        rows = [
            (self.image_ids[index], *box)
            for index in range(len(self))
            for box in self._boxes[index]
        ]
        table = np.array(rows, dtype=np.float64).reshape(-1, 6)
        sides = table[:, 4:] - table[:, 2:4]
        return GroundTruth(
            categories=self._categories,
            image_ids=self.image_ids,
            image_sizes=self.image_sizes,
            annotation_ids=np.arange(1, len(table) + 1),
            annotation_image_ids=table[:, 0].astype(np.int64),
            category_labels=table[:, 1].astype(np.int64),
            boxes_xywh=np.concatenate([table[:, 2:4], sides], axis=1),
            areas=sides.prod(axis=1),
            is_crowd=np.zeros(len(table), dtype=np.bool_),
        )
