"""The boxes around the shapes that labelling tools draw.

A box is ``(x1, y1, x2, y2)`` in pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from retina.datasets.formats.table_builder import Box
from retina.datasets.optional_values import number_of


def finite_numbers(values: Sequence[object]) -> list[float] | None:
    """The numbers that values are or spell; None where one is none, or of no usual size."""
    numbers = [number_of(value) for value in values]
    usual = [number for number in numbers if number is not None and abs(number) < 2**31]
    return usual if len(usual) == len(numbers) else None


def box_around(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """The box around points, at least one."""
    return min(xs), min(ys), max(xs), max(ys)


def box_of_ellipse(
    center: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Box:
    """The box around an ellipse.

    Args:
        center: x and y.
        radii: along its two axes.
        angle: that its first axis is turned by, in radians.
    """
    (x, y), (a, b) = center, radii
    half_width = math.hypot(a * math.cos(angle), b * math.sin(angle))
    half_height = math.hypot(a * math.sin(angle), b * math.cos(angle))
    return x - half_width, y - half_height, x + half_width, y + half_height


def box_of_turned_box(box: Box, angle: float) -> Box:
    """The upright box around one that is turned round its centre by an angle in radians."""
    x1, y1, x2, y2 = box
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = abs(x2 - x1), abs(y2 - y1)
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def boxless_finding(boxless: Counter[str]) -> str:
    """A sentence on shapes that were passed over, by their kinds; or nothing."""
    count = boxless.total()
    if not count:
        return ""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(boxless.items()))
    shapes = "shape without a box is" if count == 1 else "shapes without a box are"
    return f"{count} {shapes} passed over: {kinds}"
