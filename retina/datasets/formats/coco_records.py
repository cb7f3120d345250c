"""One of the lists of a COCO file, read column by column, with all that is wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from retina.datasets.annotations import path_fault, text_fault
from retina.datasets.ids import NO_ID, Ids
from retina.datasets.optional_values import flag_of, number_of
from retina.structures import BoolArray, FloatArray, IntArray

Record = dict[str, Any]

_BOX = "a list [x, y, width, height]"
_NO_BOX = [0, 0, 0, 0]
_ID = "an id: a whole number of at most 63 bits, or a text"
_NUMBERS = (int, float)


def shown(value: object) -> str:
    """A value as messages show it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


class Records:
    """One of the three lists of a COCO file, read column by column.

    A column is first checked as a whole, which costs little; only where that fails, the records at
    fault are searched for. What is wrong is added to ``problems``, and something stands in its
    place until all is read.

    Attributes:
        findings: what was taken for values that are missing or senseless, one sentence each.
    """

    def __init__(self, part: str, records: list[Record], problems: list[str]) -> None:
        self.records = records
        self.findings: list[str] = []
        self._part = part
        self._problems = problems

    def ids(self, key: str) -> Ids:
        """A column of ids, which several records may share."""
        ids, wrong = Ids.of([record.get(key) for record in self.records])
        self._refuse(key, wrong, _ID)
        return ids

    def own_ids(self) -> IntArray:
        """``id``, which decides nothing: numbered from 1 unless every record has one of its own."""
        ids, wrong = Ids.of([record.get("id") for record in self.records])
        numbers = ids.numbers
        if not len(wrong) and not ids.originals and len(np.unique(numbers)) == len(numbers):
            return numbers
        if len(wrong) < len(numbers):
            self.findings.append(
                f"the ids of '{self._part}' are missing, no numbers or not unique: numbered anew "
                "from 1"
            )
        return np.arange(1, len(numbers) + 1)

    def strings(self, key: str) -> list[str]:
        """A column of texts for people."""
        return self._texts(key, text_fault)

    def file_names(self) -> list[str]:
        """``file_name``: paths below the image folder."""
        return self._texts("file_name", path_fault)

    def _texts(self, key: str, fault_of: Callable[[str], str]) -> list[str]:
        given = [record.get(key) for record in self.records]
        wrong = [at for at, value in enumerate(given) if not isinstance(value, str)]
        self._refuse(key, wrong, "a string")
        # Of those that are none, each is another one.
        values = [v if isinstance(v, str) else f"{at}?" for at, v in enumerate(given)]
        for index, value in enumerate(values):
            if fault := fault_of(value):
                self._problems.append(f"{self._where(index, key)}: {fault}")
        return values

    def references(self, key: str, ids: Ids, what: str) -> IntArray:
        """A column of ids of other records, as their positions."""
        values = [record.get(key) for record in self.records]
        found = ids.positions_of(values)
        unknown = np.flatnonzero(found < 0)
        if not len(unknown):
            return found
        no_ids = Ids.of([values[at] for at in unknown])[1]
        self._refuse(key, unknown[no_ids], _ID)
        others = np.setdiff1d(unknown, unknown[no_ids])
        if len(others) and NO_ID not in ids.numbers:  # else one of those may be meant
            index = int(others[0])
            self._problems.append(
                f"{self._where(index, key)}: there is no {what} with the id {values[index]!r} in "
                f"this file ({len(others)} of {len(values)} annotations belong to an unknown "
                f"{what})"
            )
        return np.maximum(found, 0)

    def boxes(self) -> FloatArray:
        """``bbox`` as ``(G, 4)``."""
        values = [record.get("bbox") for record in self.records]
        boxes = [box if type(box) is list and len(box) == 4 else _NO_BOX for box in values]
        self._refuse("bbox", [at for at, box in enumerate(boxes) if box is _NO_BOX], _BOX)
        flat = list(chain.from_iterable(boxes))
        if not set(map(type, flat)) <= {int, float}:
            no_numbers = {at // 4 for at, side in enumerate(flat) if type(side) not in _NUMBERS}
            self._refuse("bbox", sorted(no_numbers), "four numbers")
            flat = [side if type(side) in _NUMBERS else 0 for side in flat]
        try:
            return np.array(flat, dtype=np.float64).reshape(-1, 4)
        except OverflowError:
            too_large = {at // 4 for at, side in enumerate(flat) if abs(side) >= 2**1023}
            self._refuse("bbox", sorted(too_large), "four numbers of usual size")
            return np.zeros((len(values), 4))

    def areas(self) -> FloatArray:
        """``area``; NaN where a record has none."""
        return self.optional_numbers("area", lambda area: area >= 0)

    def optional_numbers(
        self, key: str, is_sensible: Callable[[FloatArray], BoolArray]
    ) -> FloatArray:
        """A column of numbers that decide little; NaN where there is none that makes sense."""
        values = [record.get(key) for record in self.records]
        numbers = [np.nan if value is None else number_of(value) for value in values]
        senseless = [at for at, number in enumerate(numbers) if number is None]
        column = np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)
        given = np.isfinite(column)
        out_of_range = np.flatnonzero(given & ~is_sensible(np.where(given, column, 0)))
        column[out_of_range] = np.nan
        self._pass_over(key, [*senseless, *out_of_range.tolist()], "taken as not given")
        return column

    def flags(self, key: str) -> BoolArray:
        """A column of 0 and 1; 0 where a record has none that makes sense."""
        values = [record.get(key, 0) for record in self.records]
        if set(map(type, values)) <= {int, bool} and set(values) <= {0, 1}:
            return np.array(values, dtype=bool)
        meanings = [flag_of(value) for value in values]
        senseless = [at for at, meaning in enumerate(meanings) if meaning is None]
        self._pass_over(key, senseless, "taken as 0")
        return np.array([bool(meaning) for meaning in meanings], dtype=bool)

    def sizes(self) -> IntArray:
        """``height`` and ``width`` as ``(I, 2)``; ``(0, 0)`` where either is missing."""
        columns = [self.optional_numbers(key, _is_side) for key in ("height", "width")]
        sizes = np.nan_to_num(np.stack(columns, axis=1)).astype(np.int64)
        sizes[(sizes <= 0).any(axis=1)] = 0
        return sizes

    def _where(self, index: int, key: str) -> str:
        """The place of a value, for messages."""
        record_id = self.records[index].get("id")
        of = f" (id {record_id})" if isinstance(record_id, int) and key != "id" else ""
        return f"{self._part}[{index}].{key}{of}"

    def _refuse(self, key: str, wrong: Sequence[int] | IntArray, what: str) -> None:
        if not len(wrong):
            return
        index = int(wrong[0])
        record = self.records[index]
        fault = (
            f"must be {what}, is {shown(record[key])}" if key in record else "this key is missing"
        )
        others = f" (and {len(wrong) - 1} more of '{self._part}')" if len(wrong) > 1 else ""
        self._problems.append(f"{self._where(index, key)}: {fault}{others}")

    def _pass_over(self, key: str, senseless: Sequence[int], what: str) -> None:
        if senseless:
            index = min(senseless)
            self.findings.append(
                f"{len(senseless)} of {len(self.records)} values of '{key}' in '{self._part}' make "
                f"no sense: {what} (the first: {self._where(index, key)} is "
                f"{shown(self.records[index][key])})"
            )


def _is_side(values: FloatArray) -> BoolArray:
    # 0 and -1 are how tools write that they do not know it.
    is_whole: BoolArray = values == np.floor(values)
    return is_whole & (values >= -1) & (values < 2**31)


def is_fraction(values: FloatArray) -> BoolArray:
    """``(G,)`` which values lie within 0 … 1."""
    return (values >= 0) & (values <= 1)
