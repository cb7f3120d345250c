"""Which size an image is scaled to."""

from __future__ import annotations

import math

from retina.structures import Size


def fit_into(size: Size, canvas: Size) -> Size:
    """The largest size of the same aspect ratio that fits a canvas (at least one pixel a side).

    Rounds down in double precision, as torchvision's transform does, so that both agree to the
    pixel.
    """
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    height, width = (max(1, math.floor(side * scale)) for side in size)
    return height, width


def canvas_for(size: Size, shortest_side: int, longest_side: int) -> Size:
    """The canvas of the shortest-side rule for an image: wide for a wide one, else upright."""
    return (shortest_side, longest_side) if size[1] >= size[0] else (longest_side, shortest_side)
