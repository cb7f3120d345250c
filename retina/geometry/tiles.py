"""Where tiles lie on an image, and which boxes their borders cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.structures import BoolArray, FloatArray, Size

MARGIN = 2.0
"""Pixels of the image; a box that ends so near to a border touches it."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image in whole pixels; ``x2`` and ``y2`` are the first ones outside of it."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.y2 - self.y1, self.x2 - self.x1

    @property
    def box(self) -> tuple[int, int, int, int]:
        """As a box."""
        return self.x1, self.y1, self.x2, self.y2


def whole_window(size: Size) -> Window:
    """The window that is all of an image."""
    return Window(0, 0, size[1], size[0])


def tile_windows(size: Size, tile: int, overlap: float) -> list[Window]:
    """The tiles that cover an image, row by row: all of one size, and spread evenly.

    Args:
        size: of the image.
        tile: the sides of a tile in pixels; where the image is smaller, its own.
        overlap: the part of a tile that its neighbour sees as well, at least; below 1.
    """
    rows, columns = (_starts(length, tile, overlap) for length in size)
    height, width = (min(tile, length) for length in size)
    return [Window(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one side; the first at 0, and the last ends at the border."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    gaps = -(-(length - tile) // step)
    return [number * (length - tile) // gaps for number in range(gaps + 1)]


def cut_sides(boxes: FloatArray, windows: FloatArray, size: Size) -> BoolArray:
    """Which sides of boxes lie at a border of their tile that is none of the image.

    Args:
        boxes: ``(N, 4)``, in pixels of the image.
        windows: ``(N, 4)``, the tile that each was seen in.
        size: of the image.

    Returns:
        ``(N, 4)``: left, upper, right, lower.
    """
    borders = np.array([0, 0, size[1], size[0]], dtype=np.float64)
    cut: BoolArray = (np.abs(boxes - windows) <= MARGIN) & (windows != borders)
    return cut
