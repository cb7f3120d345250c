"""Which size an image is scaled to, and which size a batch is padded to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retina.errors import UserError
from retina.structures import Size


def fit_into(size: Size, max_size: Size) -> Size:
    """The largest size of the same aspect ratio within ``max_size`` (at least one pixel a side).

    Rounds down in double precision, as torchvision's transform does, so that both agree to the
    pixel.
    """
    scale = min(max_size[0] / size[0], max_size[1] / size[1])
    height, width = (max(1, math.floor(side * scale)) for side in size)
    return height, width


def max_size_for(size: Size, shortest_side: int, longest_side: int) -> Size:
    """The bounds of height and width by the shortest-side rule: wide for a wide image."""
    return (shortest_side, longest_side) if size[1] >= size[0] else (longest_side, shortest_side)


def padded_size(sizes: Sequence[Size], *, size_divisor: int, pad_to: Size | None = None) -> Size:
    """The size of a batch that holds images of these sizes.

    Args:
        sizes: at least one.
        size_divisor: the height and the width are multiples of it.
        pad_to: the size instead.

    Raises:
        UserError: an image does not fit into ``pad_to``.
    """
    height, width = (max(size[side] for size in sizes) for side in (0, 1))
    if pad_to is None:
        return -(-height // size_divisor) * size_divisor, -(-width // size_divisor) * size_divisor
    if height > pad_to[0] or width > pad_to[1]:
        raise UserError(
            f"preprocess.pad_to: an image resized to {height}×{width} does not fit into "
            f"{pad_to[0]}×{pad_to[1]} (height × width); enlarge pad_to, or lower min_size and "
            "max_size"
        )
    return pad_to
