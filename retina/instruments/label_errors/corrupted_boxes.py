"""Boxes as label errors have them: beside their object, or where no object is.

Boxes are ``[x, y, width, height]`` in pixels, as COCO writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retina.structures import FloatArray, Size

Box = Sequence[float]

SPURIOUS_IOU = 0.1
"""A spurious box overlaps every box (also those taken away or put beside their object) by less, and
less of it lies in a crowd region."""

_TRIES = 200


def shifted_box(
    box: Box, image_size: Size, random: np.random.Generator, *, overlap: tuple[float, float]
) -> list[float] | None:
    """A box ``[x, y, width, height]`` moved and scaled, inside its image.

    Args:
        box: as it is.
        image_size: (height, width).
        random: where chance comes from.
        overlap: the least and the most IoU with the box as it is.

    Returns:
        The box in hundredths of a pixel, or None where none was found (a box at the border of a
        small image).
    """
    height, width = image_size
    x, y, w, h = box
    for _ in range(_TRIES):
        by_x, by_y = random.uniform(-0.5, 0.5, 2)
        scale_x, scale_y = np.exp(random.uniform(-0.35, 0.35, 2))
        center_x, center_y = x + w * (0.5 + by_x), y + h * (0.5 + by_y)
        half_w, half_h = 0.5 * w * scale_x, 0.5 * h * scale_y
        left, right = np.clip([center_x - half_w, center_x + half_w], 0, width)
        top, bottom = np.clip([center_y - half_h, center_y + half_h], 0, height)
        moved = [round(float(side), 2) for side in (left, top, right - left, bottom - top)]
        if overlap[0] <= _highest_iou(moved, [box]) <= overlap[1]:
            return moved
    return None


def free_box(
    box: Box,
    others: Sequence[Box],
    image_size: Size,
    random: np.random.Generator,
    *,
    crowds: Sequence[Box] = (),
) -> list[float] | None:
    """A box of the same width and height at a random place of an image.

    Returns:
        ``[x, y, width, height]``, or None where it does not fit in, overlaps one of the others by
        `SPURIOUS_IOU` or more, or lies in a crowd region, where objects are, by that share.
    """
    height, width = image_size
    w, h = float(box[2]), float(box[3])
    if w > width or h > height:
        return None
    x, y = random.uniform(0, width - w), random.uniform(0, height - h)
    moved = [round(float(x), 2), round(float(y), 2), w, h]
    is_free = (
        _highest_iou(moved, others) < SPURIOUS_IOU
        and float(_shared_areas(moved, crowds).max(initial=0.0)) < SPURIOUS_IOU * w * h
    )
    return moved if is_free else None


def _highest_iou(box: Box, others: Sequence[Box]) -> float:
    """The highest overlap of an ``(x, y, width, height)`` box with any of the others."""
    theirs: FloatArray = np.array(others, dtype=np.float64).reshape(-1, 4)
    shared = _shared_areas(box, others)
    union = theirs[:, 2] * theirs[:, 3] + box[2] * box[3] - shared
    return float((shared / union.clip(min=1e-9)).max(initial=0.0))


def _shared_areas(box: Box, others: Sequence[Box]) -> FloatArray:
    """``(N,)`` the area that an ``(x, y, width, height)`` box shares with each of the others."""
    x, y, w, h = box
    theirs: FloatArray = np.array(others, dtype=np.float64).reshape(-1, 4)
    across = np.minimum(theirs[:, 0] + theirs[:, 2], x + w) - np.maximum(theirs[:, 0], x)
    down = np.minimum(theirs[:, 1] + theirs[:, 3], y + h) - np.maximum(theirs[:, 1], y)
    shared: FloatArray = across.clip(min=0) * down.clip(min=0)
    return shared
