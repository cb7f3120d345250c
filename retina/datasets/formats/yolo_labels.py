"""The rows of YOLO's label files: ``class x y width height``, in fractions of the image.

The centre of the box comes first. Rows of other tasks have a box, too: an outline or a turned box
(``class x1 y1 x2 y2 …``) has the one around it, keypoints stand behind one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from retina.datasets.formats.table_builder import Box

RowKind = Literal["box", "confidence", "outline", "keypoints"]

FARTHEST = 2.0
"""A number beyond it is no fraction of an image; boxes that reach out by less are cut off later."""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One object of a label file.

    Attributes:
        class_id: of its category.
        corners: ``(x1, y1, x2, y2)`` in fractions of the image.
        kind: what the row holds beside or instead of a box.
    """

    class_id: int
    corners: Box
    kind: RowKind


def read_row(line: str, *, has_keypoints: bool) -> LabelRow:
    """The object of a line.

    Args:
        line: of a label file, not blank.
        has_keypoints: whether the data set says that keypoints stand behind its boxes.

    Raises:
        ValueError: it is no such line; says what is wrong with it.
    """
    first, *rest = line.split()
    numbers = _numbers(line, rest)
    class_id = _class_id(first)
    kind = _kind(numbers, has_keypoints, line)
    shape = numbers if kind == "outline" else numbers[:4]
    if min(shape) > 1 or max(map(abs, shape)) > FARTHEST:
        raise ValueError(
            f"{_shown(line)} has numbers above 1, as in pixels; YOLO's are fractions: x and width "
            "divided by the image's width, y and height by its height"
        )
    return LabelRow(class_id, _around(shape) if kind == "outline" else _of_centre(shape), kind)


def _numbers(line: str, texts: Sequence[str]) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"{_shown(line)} is not 'class x y width height' in numbers") from None
    if len(numbers) < 4:
        raise ValueError(
            f"{_shown(line)} has {len(numbers)} numbers after the class; a box has 4: x, y, width, "
            "height"
        )
    return numbers


def _class_id(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(
            f"'{text[:60]}' is no class id; write the number of the class, counted from 0"
        ) from None
    if not math.isfinite(number) or number != int(number) or number < 0:
        raise ValueError(f"the class id {text[:60]} is no whole number from 0 on")
    return int(number)


def _kind(numbers: Sequence[float], has_keypoints: bool, line: str) -> RowKind:
    count = len(numbers)
    if count == 4:
        return "box"
    if count == 5:
        return "confidence"
    if has_keypoints or _looks_like_keypoints(numbers):
        return "keypoints"
    if count % 2:
        raise ValueError(
            f"{_shown(line)} has {count} numbers after the class: neither a box (4) nor an outline "
            "(x and y of three points or more)"
        )
    return "outline"


def _looks_like_keypoints(numbers: Sequence[float]) -> bool:
    """Whether triples of x, y and a visibility follow the box, which an outline has only by chance.

    The visibility is 0, 1 or 2, and 2 is no fraction.
    """
    visibilities = numbers[6::3]
    fits = (len(numbers) - 4) % 3 == 0 and all(value in (0, 1, 2) for value in visibilities)
    return fits and (len(numbers) % 2 == 1 or 2 in visibilities)


def _of_centre(numbers: Sequence[float]) -> Box:
    x, y, width, height = numbers
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(points: Sequence[float]) -> Box:
    if not all(map(math.isfinite, points)):
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _shown(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
