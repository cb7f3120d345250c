"""What LVIS adds to COCO's files: which classes were looked for in which image.

``images[].neg_category_ids`` are the classes that were looked for and are not there,
``images[].not_exhaustive_category_ids`` those of which not every object is annotated,
``categories[].frequency`` is r, c or f (Gupta, Dollár, Girshick 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina.datasets.formats.coco_records import Record
from retina.datasets.ids import Ids
from retina.structures import Federation, IntArray

_ABSENT, _NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"
_FREQUENCIES = ("r", "c", "f")
_MOST_OF_COMMON = ((10, "r"), (100, "c"))
"""How many training images a rare and a common class has at most (LVIS v1)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The images or categories of a file.

    Attributes:
        records: the entries of the list.
        ids: of the entries.
        row_of: the image or label of each entry, since entries may be merged.
    """

    records: Sequence[Record]
    ids: Ids
    row_of: IntArray


def federation_of(images: Listed, categories: Listed) -> Federation | None:
    """What the file says about the classes that were looked for; None where it says nothing.

    Ids of categories that the file does not list are passed over: the lists of a file that was cut
    to some classes are usually left whole.
    """
    if not any(key in image for image in images.records for key in (_ABSENT, _NOT_EXHAUSTIVE)):
        return None
    num_labels = int(categories.row_of.max(initial=-1)) + 1
    frequencies = [""] * num_labels
    for record, label in zip(categories.records, categories.row_of.tolist(), strict=True):
        frequencies[label] = frequencies[label] or _frequency(record)
    return Federation(
        absent=_pairs(images, categories, _ABSENT),
        not_exhaustive=_pairs(images, categories, _NOT_EXHAUSTIVE),
        frequencies=tuple(frequencies),
    )


def _frequency(category: Record) -> str:
    given, count = category.get("frequency"), category.get("image_count")
    if given in _FREQUENCIES:
        return str(given)
    if not isinstance(count, int):
        return ""
    return next((letter for most, letter in _MOST_OF_COMMON if count <= most), "f")


def _pairs(images: Listed, categories: Listed, key: str) -> IntArray:
    """``(P, 2)`` the image and the label of every id in the lists under a key."""
    given = [image.get(key) for image in images.records]
    lists: list[list[Any]] = [value if isinstance(value, list) else [] for value in given]
    rows = np.repeat(images.row_of, [len(value) for value in lists])
    at = categories.ids.positions_of([number for value in lists for number in value])
    pairs = np.stack([rows, np.append(categories.row_of, -1)[at]], axis=1)
    return np.unique(pairs[at >= 0], axis=0)


def lvis_finding(images: Sequence[Record]) -> str:
    """A sentence for people about a file of LVIS, or nothing."""
    if not any(image.get(key) for image in images for key in (_ABSENT, _NOT_EXHAUSTIVE)):
        return ""
    return (
        "an LVIS file: of an image not every class is annotated, which LVIS's own metric allows "
        "for (--metrics lvis); in COCO's everything that is not annotated counts as a false alarm, "
        "so that AP is far lower than LVIS's"
    )
