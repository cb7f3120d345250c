"""The best overlap that a set of anchor shapes can give each object, without laying the anchors.

Of equal anchors on a grid the one whose centre is nearest overlaps a box most, along each axis by
itself, so one anchor for each shape and level is enough: exact, and a thousand times cheaper than
all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina.instruments.doctor.coverage.measuring import InputImage, padded
from retina.structures import Size

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoxSample:
    """Objects at the network's input; N of them.

    Attributes:
        centers: ``(N, 2)`` x and y.
        sides: ``(N, 2)`` width and height.
        canvas: ``(N, 2)`` width and height of each object's padded image.
    """

    centers: Array
    sides: Array
    canvas: Array

    @classmethod
    def of(
        cls, images: Sequence[InputImage], *, size_divisor: int, pad_to: Size | None
    ) -> BoxSample:
        """The objects of some images."""
        boxes = [image.targets.boxes.double().numpy() for image in images]
        canvases = [
            np.tile(padded(image.size, size_divisor, pad_to)[::-1], (len(image.targets), 1))
            for image in images
        ]
        corners = np.concatenate([*boxes, np.zeros((0, 4))])
        return cls(
            centers=(corners[:, :2] + corners[:, 2:]) / 2,
            sides=corners[:, 2:] - corners[:, :2],
            canvas=np.concatenate([*canvases, np.zeros((0, 2))]).astype(np.float64),
        )

    def __len__(self) -> int:
        return len(self.sides)


def level_shapes(sizes: Array, scales: Array, ratios: Array) -> Array:
    """``(L, A, 2)`` widths and heights of the anchors of every level."""
    areas = sizes[:, None, None] * scales[None, None, :]
    root = np.sqrt(ratios)[None, :, None]
    return np.stack([areas / root, areas * root], axis=-1).reshape(len(sizes), -1, 2)


def best_overlaps(
    sample: BoxSample, shapes: Array, strides: Sequence[int], center_offset: float
) -> Array:
    """``(N,)`` the highest IoU that any anchor has with each object.

    Args:
        sample: the objects.
        shapes: ``(L, A, 2)``.
        strides: of the L levels.
        center_offset: of the anchors, in strides.
    """
    best = np.zeros(len(sample))
    areas = sample.sides.prod(axis=1)[:, None]
    for level, stride in zip(shapes, strides, strict=True):
        cells = np.ceil(sample.canvas / stride)
        nearest = np.rint(sample.centers / stride - center_offset).clip(0, cells - 1)
        distance = np.abs(sample.centers - (nearest + center_offset) * stride)  # (N, 2)
        reach = (sample.sides[:, None] + level[None]) / 2 - distance[:, None]  # (N, A, 2)
        shared = np.minimum(reach, np.minimum(sample.sides[:, None], level[None])).clip(min=0)
        overlap = shared.prod(axis=2)  # (N, A)
        best = np.maximum(best, (overlap / (areas + level.prod(axis=1) - overlap)).max(axis=1))
    return best
