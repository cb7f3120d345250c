"""Images that INT8 is calibrated on, each read when it is asked for: they are large in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from retina.datasets.dataset import DetectionDataset
from retina.runtime.splits import spread_indices

CALIBRATION_IMAGES = 300
"""Images that INT8 is calibrated on, at most, spread over the data."""


class ImagesOnDemand(Sequence[Tensor]):
    """Images of which one is in memory at a time.

    Args:
        count: of the images.
        make: gives the image of a number from 0 on.
    """

    def __init__(self, count: int, make: Callable[[int], Tensor]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]  # no slices
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._make(number)


def calibration_images(dataset: DetectionDataset) -> ImagesOnDemand:
    """uint8 ``(3, h, w)`` images of a data set for INT8, spread over it."""
    rows = spread_indices(len(dataset), CALIBRATION_IMAGES)
    return ImagesOnDemand(len(rows), lambda number: pixels_of(dataset, rows[number]))


def pixels_of(dataset: DetectionDataset, index: int) -> Tensor:
    """An image of a data set, uint8 ``(3, h, w)``."""
    return torch.from_numpy(dataset.load(index).image).permute(2, 0, 1)
