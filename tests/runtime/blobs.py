"""A detector that needs no training: it finds bright rectangles on a dark ground."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import Runtime
from retina.structures import Categories, Detections


class Blobs(Runtime):
    """The boxes of all connected bright parts, the larger the surer.

    Attributes:
        calls: the sizes of the images of each call.
    """

    categories = Categories.from_names(["red", "green"])
    preprocess = PreprocessConfig().build()
    thresholds = torch.tensor([0.0, 0.0]).double()

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, ...]]] = []

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        self.calls.append([tuple(image.shape[1:]) for image in images])
        return [_blobs(image) for image in images]


def _blobs(image: Tensor) -> Detections:
    boxes, labels = [], []
    for label in range(2):
        bright = np.ascontiguousarray(image[label].numpy() > 127).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        for x, y, width, height, _ in stats[1:].tolist():
            boxes.append([x, y, x + width, y + height])
            labels.append(label)
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sides = found[:, 2:] - found[:, :2]
    scores = 0.7 + 0.2 * sides.prod(dim=1) / (image.shape[1] * image.shape[2])
    order = scores.sort(descending=True, stable=True).indices
    return Detections(found[order], scores[order], torch.tensor(labels).long()[order])


def painted(size: tuple[int, int], objects: dict[tuple[int, int, int, int], int]) -> Tensor:
    """An image with a rectangle for each box, in the colour of its class."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for (x1, y1, x2, y2), label in objects.items():
        image[label, y1:y2, x1:x2] = 255
    return image


def found_boxes(found: Detections) -> dict[tuple[int, ...], int]:
    """The boxes and classes of all detections, each box once."""
    boxes = [tuple(map(round, box)) for box in found.boxes.tolist()]
    assert len(set(boxes)) == len(boxes)
    return dict(zip(boxes, found.labels.tolist(), strict=True))
