"""What becomes of a box when its image is cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.structures import BoolArray, FloatArray, Size

MIN_SIDE = 0.01
"""Pixels; a box with a shorter side is nothing that float32 arithmetic could rely on."""


@dataclass(frozen=True, slots=True)
class VisibilityRule:
    """Which of the cut boxes stay.

    Attributes:
        min_visibility: the fraction of an object's area that must be left.
        min_area: the pixels that must be left of an object.
    """

    min_visibility: float
    min_area: float

    def keeps(self, boxes: FloatArray, visibility: FloatArray, is_crowd: BoolArray) -> BoolArray:
        """Which boxes, already clipped, stay.

        Whatever is left of a crowd region stays, since without it the crowd would be taught as
        background.

        Args:
            boxes: ``(N, 4)`` clipped boxes in pixels.
            visibility: ``(N,)`` the fraction of each that is left.
            is_crowd: ``(N,)``.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        is_box = (sides >= MIN_SIDE).all(axis=1)  # False for NaN
        is_seen = (visibility >= self.min_visibility) & (sides.prod(axis=1) >= self.min_area)
        kept: BoolArray = is_box & (is_seen | is_crowd)
        return kept


def clip(boxes: FloatArray, size: Size) -> tuple[FloatArray, FloatArray]:
    """The part of each box inside an image, and the fraction of its area that it is.

    Args:
        boxes: ``(N, 4)`` in pixels, of any place and size.
        size: of the image.

    Returns:
        ``(N, 4)`` boxes, of no area where nothing is left, and ``(N,)`` fractions in 0..1.
    """
    limits = np.array([size[1], size[0]] * 2, dtype=np.float64)
    clipped = np.clip(boxes, 0, limits)
    with np.errstate(invalid="ignore", over="ignore"):  # absurd boxes have nothing left
        areas, left = _areas(boxes), _areas(clipped)
    return clipped, np.divide(left, areas, out=np.zeros_like(left), where=areas > 0)


def _areas(boxes: FloatArray) -> FloatArray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: FloatArray = sides.prod(axis=1)
    return areas
