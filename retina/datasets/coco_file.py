"""A COCO annotation file as arrays, or one clear error that says where it is wrong."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from retina.datasets.annotations import (
    AnnotationTable,
    name_array,
    refuse_outside_path,
    refuse_unprintable,
)
from retina.datasets.categories import duplicate_name_finding
from retina.errors import UserError
from retina.structures import BoolArray, Categories, FloatArray, IntArray

Record = dict[str, Any]


def read_coco_file(path: Path) -> AnnotationTable:
    """The content of a COCO annotation file.

    Raises:
        UserError: the file is missing, no JSON, no COCO file, or holds no image; a key is missing
            or of a wrong type; ids are not unique; an annotation belongs to an unknown image or
            category; a file name leads out of the image folder.
    """
    tree = _read_json(path)
    images, annotations, categories = (
        _Records(path, part, _list_of(tree, part, path))
        for part in ("images", "annotations", "categories")
    )
    if not images.records:
        raise UserError(f"{path}: the data set is empty: 'images' lists none")
    if not categories.records:
        raise UserError(f"{path}: 'categories' lists none, so there is nothing to detect")
    image_ids = images.ids("id")
    category_ids = categories.ids("id")
    listed = Categories(tuple(categories.strings("name")), tuple(category_ids.tolist()))
    return AnnotationTable(
        source=str(path),
        categories=listed,
        image_ids=image_ids,
        file_names=name_array(_file_names(images)),
        image_sizes=images.sizes(),
        annotation_ids=annotations.ids("id"),
        image_indices=annotations.references("image_id", image_ids, "image"),
        labels=annotations.references("category_id", category_ids, "category"),
        boxes_xywh=annotations.boxes(),
        areas=annotations.numbers("area"),
        is_crowd=annotations.flags("iscrowd"),
        occluded_fractions=annotations.numbers("occluded_fraction"),
    ).with_findings(duplicate_name_finding(listed))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    # Millions of fresh dicts, none of them garbage: the collector would walk them again and again.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _without_masks(record: Record) -> Record:
    # Masks are nine tenths of a COCO file; dropped as they are read, they never fill the memory.
    record.pop("segmentation", None)
    return record


def _read_json(path: Path) -> Record:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation file") from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: is a folder, but COCO annotations are one JSON file (in a config, a folder "
            "of XML files is read with kind: voc)"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{path}: the annotation file is empty")
    try:
        with _without_garbage_collection():
            tree = json.loads(text, object_hook=_without_masks)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not readable as JSON: {error.msg[0].lower()}{error.msg[1:]} at line "
            f"{error.lineno}, column {error.colno} (character {error.pos} of {len(text)}); the "
            "file may be incomplete: copy or download it again"
        ) from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    if isinstance(tree, list):
        raise UserError(
            f"{path}: is a list, such as a results file, not a COCO annotation file (an object "
            "with 'images', 'annotations' and 'categories')"
        )
    if not isinstance(tree, dict):
        raise UserError(f"{path}: is not a COCO annotation file, but a single value")
    return tree


def _list_of(tree: Record, part: str, path: Path) -> list[Record]:
    if part not in tree:
        raise UserError(
            f"{path}: is not a COCO annotation file: the key '{part}' is missing (it has "
            f"{', '.join(sorted(map(str, tree))[:10]) or 'none'})"
        )
    records = tree[part]
    if not isinstance(records, list):
        raise UserError(f"{path}: '{part}' must be a list, is {_shown(records)}")
    if not set(map(type, records)) <= {dict}:
        index = next(i for i, record in enumerate(records) if not isinstance(record, dict))
        raise UserError(f"{path}: {part}[{index}] must be an object, is {_shown(records[index])}")
    return records


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _file_names(images: _Records) -> list[str]:
    names = images.strings("file_name")
    for index, name in enumerate(names):
        refuse_outside_path(name, images.where(index, "file_name"))
    return names


class _Records:
    """One of the three lists of a COCO file, read column by column.

    A column is first checked as a whole, which costs little; only where that fails, the record at
    fault is searched for.
    """

    def __init__(self, path: Path, part: str, records: list[Record]) -> None:
        self.records = records
        self._path = path
        self._part = part

    def where(self, index: int, key: str) -> str:
        """The place of a value, for messages."""
        record_id = self.records[index].get("id")
        of = f" (id {record_id})" if isinstance(record_id, int) and key != "id" else ""
        return f"{self._path}: {self._part}[{index}].{key}{of}"

    def ids(self, key: str) -> IntArray:
        """A column of unique integers."""
        values = self._integers(key)
        if len(np.unique(values)) != len(values):
            twice = [value for value, count in Counter(values.tolist()).items() if count > 1]
            raise UserError(
                f"{self._path}: {len(twice)} {key}s of '{self._part}' stand more than once: "
                f"{', '.join(map(str, twice[:5]))}{' …' if len(twice) > 5 else ''}; every one must "
                "be unique"
            )
        return values

    def strings(self, key: str) -> list[str]:
        """A column of strings."""
        values = cast(list[str], self._column(key, {str}, "a string"))
        for index, value in enumerate(values):
            if not value.isprintable():
                refuse_unprintable(value, self.where(index, key))
        return values

    def numbers(self, key: str) -> FloatArray:
        """A column of numbers; NaN where a record has none."""
        values = [record.get(key) for record in self.records]
        self._check(values, key, {int, float, type(None)}, "a number")
        return self._floats([np.nan if value is None else value for value in values], key)

    def flags(self, key: str) -> BoolArray:
        """A column of 0 and 1; 0 where a record has none."""
        values = [record.get(key, 0) for record in self.records]
        self._check(values, key, {int, bool}, "0 or 1")
        if not set(values) <= {0, 1}:
            index = next(i for i, value in enumerate(values) if value not in (0, 1))
            raise self._wrong(index, key, "0 or 1", values[index])
        return np.array(values, dtype=bool)

    def references(self, key: str, ids: IntArray, what: str) -> IntArray:
        """A column of ids of other records, as their positions."""
        values = self._integers(key)
        order = np.argsort(ids)
        found = order[np.searchsorted(ids, values, sorter=order).clip(max=len(ids) - 1)]
        unknown = np.flatnonzero(ids[found] != values)
        if len(unknown):
            index = int(unknown[0])
            raise UserError(
                f"{self.where(index, key)}: there is no {what} with the id {values[index]} in this "
                f"file ({len(unknown)} of {len(values)} annotations belong to an unknown {what})"
            )
        return np.asarray(found, dtype=np.int64)

    def boxes(self) -> FloatArray:
        """``bbox`` as ``(G, 4)``."""
        values = self._column("bbox", {list}, "a list [x, y, width, height]")
        if not set(map(len, values)) <= {4}:
            index = next(i for i, value in enumerate(values) if len(value) != 4)
            raise self._wrong(index, "bbox", "a list [x, y, width, height]", values[index])
        flat = list(chain.from_iterable(values))
        if not set(map(type, flat)) <= {int, float}:
            index = next(i for i, v in enumerate(flat) if type(v) not in (int, float)) // 4
            raise self._wrong(index, "bbox", "four numbers", values[index])
        return self._floats(flat, "bbox", per_record=4).reshape(-1, 4)

    def sizes(self) -> IntArray:
        """``height`` and ``width`` as ``(I, 2)``; ``(0, 0)`` where either is missing."""
        columns = []
        for key in ("height", "width"):
            values = [record.get(key) or 0 for record in self.records]
            self._check(values, key, {int, float}, "a whole number of pixels")
            column = self._floats(values, key)
            wrong = np.flatnonzero(
                ~((column >= 0) & (column == np.floor(column)) & (column < 2**31))
            )
            if len(wrong):
                index = int(wrong[0])
                raise self._wrong(index, key, "a whole number of pixels", values[index])
            columns.append(column.astype(np.int64))
        sizes = np.stack(columns, axis=1)
        sizes[(sizes == 0).any(axis=1)] = 0
        return sizes

    def _floats(
        self, values: Sequence[int | float], key: str, *, per_record: int = 1
    ) -> FloatArray:
        """Numbers as one array; ``per_record`` of them belong to each record."""
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            index = next(i for i, value in enumerate(values) if abs(value) >= 2**1023)
            where = index // per_record
            raise self._wrong(where, key, "a number of usual size", values[index]) from None

    def _integers(self, key: str) -> IntArray:
        values = self._column(key, {int}, "a whole number")
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            index = next(i for i, value in enumerate(values) if abs(value) >= 2**63)
            raise self._wrong(index, key, "a number of at most 63 bits", values[index]) from None

    def _column(self, key: str, types: set[type], what: str) -> list[Any]:
        try:
            values = [record[key] for record in self.records]
        except KeyError:
            index = next(i for i, record in enumerate(self.records) if key not in record)
            raise UserError(f"{self.where(index, key)}: this key is missing") from None
        self._check(values, key, types, what)
        return values

    def _check(self, values: Sequence[Any], key: str, types: Iterable[type], what: str) -> None:
        allowed = set(types)
        if not set(map(type, values)) <= allowed:
            index = next(i for i, value in enumerate(values) if type(value) not in allowed)
            raise self._wrong(index, key, what, values[index])

    def _wrong(self, index: int, key: str, what: str, value: object) -> UserError:
        return UserError(f"{self.where(index, key)}: must be {what}, is {_shown(value)}")
