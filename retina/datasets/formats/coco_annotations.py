"""The annotations of a COCO file without anything odd, taken into arrays while it is read.

As objects of Python ten million annotations take six gigabytes, as arrays less than one. What is
odd in a file is found and told by `coco_file`, which then reads it once more.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from retina.datasets.ids import NO_ID, Ids
from retina.structures import BoolArray, FloatArray, IntArray

_BLOCK = 8192
_KEYS = {"image_id", "category_id", "bbox"}
_ABSENT = {"area": np.nan, "iscrowd": 0, "occluded_fraction": np.nan}
"""What stands for a key that a record may lack."""

Record = dict[str, Any]


class IrregularError(Exception):
    """An annotation has something odd, be it right or wrong; not for users."""


class RegularAnnotations:
    """Takes annotations one by one, and keeps their columns; G of them in the end.

    Attributes:
        findings: none: whatever is to be told is irregular.
    """

    def __init__(self) -> None:
        self.findings: list[str] = []
        self._block: list[Record] = []
        # Arrays that grow in place: pieces to be joined would leave holes in the memory.
        self._columns: dict[str, array[Any]] = {}

    def take(self, record: Record) -> Record | None:
        """The record, without its mask; None where it is an annotation, which is taken.

        Raises:
            IrregularError: see `all_of`.
        """
        if not record.keys() >= _KEYS:
            record.pop("segmentation", None)
            return record
        record.pop("segmentation", None)
        self._block.append(record)
        if len(self._block) == _BLOCK:
            self._flush()
        return None

    def all_of(self, taken: Any) -> RegularAnnotations:
        """Itself, once all is read.

        Args:
            taken: what is left of the list of annotations.

        Raises:
            IrregularError: another object was taken for an annotation, or the other way round; or a
                value is not as COCO's own files have it.
        """
        self._flush()
        count = len(self._columns.get("id", ()))
        if type(taken) is not list or len(taken) != count or any(one is not None for one in taken):
            raise IrregularError
        return self

    def _flush(self) -> None:
        block, self._block = self._block, []
        if not block:
            return
        for key in ("id", "image_id", "category_id"):
            self._keep(key, _whole([record.get(key) for record in block]))
        boxes = [record["bbox"] for record in block]
        if any(type(box) is not list or len(box) != 4 for box in boxes):
            raise IrregularError
        self._keep("bbox", _numbers([side for box in boxes for side in box]))
        for key, absent in _ABSENT.items():
            column = _numbers([record.get(key, absent) for record in block])
            if np.isnan(column).sum() > sum(key not in record for record in block):
                raise IrregularError  # NaN stands in the file
            self._keep(key, column)

    def _keep(self, key: str, values: np.ndarray[Any, Any]) -> None:
        kind = "q" if values.dtype == np.int64 else "d"
        self._columns.setdefault(key, array(kind)).frombytes(values.tobytes())

    def _column(self, key: str) -> np.ndarray[Any, Any]:
        column = self._columns.pop(key, None)  # each is asked for once
        if column is None:
            return np.zeros(0)
        return np.frombuffer(column, np.int64 if column.typecode == "q" else np.float64)

    def own_ids(self) -> IntArray:
        """``(G,)`` int64, all different."""
        ids = self._column("id").astype(np.int64, copy=False)
        if len(np.unique(ids)) != len(ids):
            raise IrregularError
        return ids

    def references(self, key: str, ids: Ids, what: str) -> IntArray:
        """``(G,)`` int64, the positions of ids of other records, which all are there."""
        found = ids.numbered(self._column(key).astype(np.int64, copy=False))
        if ids.originals or NO_ID in ids.numbers or (found < 0).any():
            raise IrregularError
        return found

    def boxes(self) -> FloatArray:
        """``(G, 4)`` float64."""
        return self._column("bbox").reshape(-1, 4)

    def areas(self) -> FloatArray:
        """``(G,)`` float64, NaN where there is none."""
        areas = self._column("area")
        if np.isinf(areas).any() or (areas < 0).any():
            raise IrregularError
        return areas

    def flags(self, key: str) -> BoolArray:
        """``(G,)`` bool."""
        flags = self._column(key)
        if not np.isin(flags, (0, 1)).all():
            raise IrregularError
        return flags.astype(np.bool_)

    def optional_numbers(self, key: str, is_sensible: Any) -> FloatArray:
        """``(G,)`` float64, NaN where there is none."""
        column = self._column(key)
        given = ~np.isnan(column)
        if not is_sensible(column[given]).all() or np.isinf(column).any():
            raise IrregularError
        return column


def _whole(values: list[Any]) -> IntArray:
    if set(map(type, values)) != {int}:
        raise IrregularError
    return _array(values, np.int64)


def _numbers(values: list[Any]) -> FloatArray:
    if not set(map(type, values)) <= {int, float}:
        raise IrregularError
    return _array(values, np.float64)


def _array(values: list[Any], kind: type[np.generic]) -> np.ndarray[Any, Any]:
    try:
        return np.array(values, dtype=kind)
    except OverflowError:
        raise IrregularError from None
