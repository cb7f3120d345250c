"""The ids that annotation and results files give to images, categories and annotations.

COCO's are whole numbers. Tools also write them as text ("0", "frame_7") or as floats (42.0), and
pycocotools scores such files, so every reader here takes the same: what spells a whole number is
that number, and any other text is an id of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from retina.structures import IntArray, OriginalId

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,18})(\.0*)?")


def canonical_id(value: object) -> OriginalId | None:
    """What an id means: a number of 64 bits, or a text; None where it is neither."""
    if isinstance(value, str) and value.strip():
        spelled = _WHOLE.fullmatch(value.strip())
        if spelled is None:
            return value
        value = int(spelled[0].partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return int(value) if is_number else None  # type: ignore[call-overload]


NO_ID = -(2**63)
"""Stands in the place of a value that is no id; no file can give it, nor any list keep it."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of the records of a list, as numbers.

    Attributes:
        numbers: ``(N,)`` int64: those of the file, or 1, 2, … in the order of the list where one of
            them is a text that spells no number.
        originals: what stands in the file in the place of a number, where that is another thing.
    """

    numbers: IntArray
    originals: Mapping[int, OriginalId] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[Any]) -> tuple[Self, IntArray]:
        """The ids, and the positions of the values that are none (these get `NO_ID`)."""
        if set(map(type, values)) <= {int}:
            try:
                return cls(np.array(values, dtype=np.int64)), np.zeros(0, dtype=np.int64)
            except OverflowError:
                pass
        meanings = [canonical_id(value) for value in values]
        wrong = np.array([at for at, one in enumerate(meanings) if one is None], dtype=np.int64)
        if any(isinstance(meaning, str) for meaning in meanings):
            first = {meaning: at for at, meaning in reversed(list(enumerate(meanings, start=1)))}
            numbers = [NO_ID if meaning is None else first[meaning] for meaning in meanings]
            originals = dict(zip(numbers, values, strict=True))
        else:
            numbers = [NO_ID if meaning is None else int(meaning) for meaning in meanings]
            originals = {
                number: value
                for number, value in zip(numbers, values, strict=True)
                if isinstance(value, str)
            }
        return cls(np.array(numbers, dtype=np.int64), originals), wrong

    def positions_of(self, values: Sequence[Any]) -> IntArray:
        """``(M,)`` int64, where in the list the ids that are meant stand; -1 for unknown ones."""
        if not self.originals and set(map(type, values)) <= {int}:
            try:
                return self.numbered(np.array(values, dtype=np.int64))
            except OverflowError:
                pass
        by_meaning = self.by_meaning() or {number: number for number in self.numbers.tolist()}
        numbers = [by_meaning.get(canonical_id(value), NO_ID) for value in values]  # type: ignore[arg-type]
        return self.numbered(np.array(numbers, dtype=np.int64))

    def by_meaning(self) -> dict[OriginalId, int] | None:
        """The number of every id that the file gives; None where all are their own numbers."""
        if not self.originals:
            return None
        numbers = {*self.numbers.tolist(), *self.originals}
        meanings = ((canonical_id(self.originals.get(n, n)), n) for n in numbers)
        return {meaning: number for meaning, number in meanings if meaning is not None}

    def numbered(self, values: IntArray) -> IntArray:
        """``(M,)`` int64, where in the list these numbers stand; -1 for unknown ones."""
        if not len(self.numbers):
            return np.full(len(values), -1, dtype=np.int64)
        order = np.argsort(self.numbers, kind="stable")
        rank = np.searchsorted(self.numbers, values, sorter=order).clip(max=len(order) - 1)
        found = order[rank]
        known = (self.numbers[found] == values) & (values != NO_ID)
        return np.where(known, found, -1)


def numbers_of_names(names: Sequence[str]) -> IntArray:
    """The image ids: the digits of each name as a number, or 1, 2, … if that is not unique."""
    digits = [re.sub("[^0-9]", "", name) for name in names]
    numbers = [int(text) if 0 < len(text) <= 15 else -1 for text in digits]
    if min(numbers) >= 0 and len(set(numbers)) == len(numbers):
        return np.array(numbers, dtype=np.int64)
    ranks = {name: rank for rank, name in enumerate(sorted(names), start=1)}
    return np.array([ranks[name] for name in names], dtype=np.int64)
