"""A COCO annotation file as arrays, or one clear error that says all that is wrong in it.

Fields that decide neither an image nor a class nor a box (``area``, ``iscrowd``, sizes, ids of
annotations) may be missing or senseless: their default is taken, and counted.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array, path_fault, text_fault
from retina.datasets.categories import duplicate_name_finding
from retina.datasets.formats.coco_annotations import IrregularError, RegularAnnotations
from retina.datasets.ids import NO_ID, Ids
from retina.datasets.optional_values import flag_of, number_of
from retina.datasets.repeated import merge_categories, merge_images
from retina.errors import UserError, all_problems, did_you_mean
from retina.structures import BoolArray, Categories, FloatArray, IntArray
from retina.text_files import read_json
from retina.wording import counted

Record = dict[str, Any]

_BOX = "a list [x, y, width, height]"
_NO_BOX = [0, 0, 0, 0]
_ID = "an id: a whole number of at most 63 bits, or a text"
_NUMBERS = (int, float)
_OBJECTS365 = re.compile(r"images/v\d/[^/]+/[^/]+$")
_LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


def read_coco_file(
    path: Path, images_folder: Path | None = None, *, keep_root: bool = True
) -> AnnotationTable:
    """The content of a COCO annotation file.

    Images and categories that are listed several times are merged. A file without the key
    ``annotations`` is that of a test split. Annotations with an empty box, as tools write those of
    points, are left out.

    Args:
        path: the file.
        images_folder: of its images, where they are there: it says how much of a longer name counts
            (see `_place`).
        keep_root: whether the category that Roboflow puts above all others is one to learn; what
            is scored may use it.

    Raises:
        UserError: the file is missing, no JSON, no COCO file, or holds no image; a key that decides
            an image, a class or a box is missing or of a wrong type; entries with one id contradict
            each other; an annotation belongs to an unknown image or category; a file name leads out
            of the image folder. The message names all of it.
    """
    try:
        return _read(path, images_folder, keep_root=keep_root, regular=RegularAnnotations())
    except IrregularError:  # something is to be told, or mended
        return _read(path, images_folder, keep_root=keep_root, regular=None)


def _read(
    path: Path,
    images_folder: Path | None = None,
    *,
    keep_root: bool = True,
    regular: RegularAnnotations | None,
) -> AnnotationTable:
    """The content of the file.

    Args:
        path: as for `read_coco_file`.
        images_folder: likewise.
        keep_root: likewise.
        regular: takes the annotations as they are read, so that they never fill the memory; None
            for a file that has any others.

    Raises:
        IrregularError: it is such a file.
    """
    tree = _read_tree(path, _without_masks if regular is None else regular.take)
    problems: list[str] = []
    images, categories = (
        _Records(part, _list_of(tree, part, path, problems), problems)
        for part in ("images", "categories")
    )
    annotations: RegularAnnotations | _Records
    boxless = ""
    if regular is None:
        records = _list_of(tree, "annotations", path, problems)
        boxless = "" if problems else _leave_out_boxless(records)
        annotations = _Records("annotations", records, problems)
    else:
        annotations = regular.all_of(tree.get("annotations"))
    if not problems and not images.records:
        problems.append("the data set is empty: 'images' lists none")
    if not problems and not categories.records:
        problems.append("'categories' lists none, so there is nothing to detect")
    if problems:
        raise UserError(all_problems(str(path), problems))
    placed = _place(images.records, images_folder)
    image_ids, category_ids = images.ids("id"), categories.ids("id")
    merged = merge_images(image_ids, images.file_names(), images.sizes(), problems)
    listed, label_of = merge_categories(category_ids, categories.strings("name"), problems)
    in_image = annotations.references("image_id", image_ids, "image")
    of_category = annotations.references("category_id", category_ids, "category")
    boxes = annotations.boxes()
    if problems:
        raise UserError(all_problems(str(path), problems))
    table = AnnotationTable(
        source=str(path),
        categories=listed,
        image_ids=merged.ids,
        file_names=name_array(merged.file_names),
        image_sizes=merged.sizes,
        annotation_ids=annotations.own_ids(),
        image_indices=merged.row_of[in_image],
        labels=label_of[of_category],
        boxes_xywh=boxes,
        areas=annotations.areas(),
        is_crowd=annotations.flags("iscrowd"),
        occluded_fractions=annotations.optional_numbers("occluded_fraction", _is_fraction),
        original_image_ids=image_ids.originals,
        image_aliases=merged.aliases,
    )
    table, root = (table, "") if keep_root else _without_root(table, categories.records, label_of)
    return table.with_findings(
        duplicate_name_finding(listed),
        *images.findings,
        merged.finding,
        *categories.findings,
        *annotations.findings,
        _repeated_categories(len(categories.records) - len(listed)),
        root,
        boxless,
        placed,
        _without_annotations(tree),
        _lvis_finding(images.records),
    )


def _repeated_categories(count: int) -> str:
    repeat = "repeats" if count == 1 else "repeat"
    entries = counted(count, "entry", "of 'categories'")
    return f"{entries} {repeat} another one: merged" if count else ""


def _without_annotations(tree: Record) -> str:
    if tree.get("annotations") is not None:
        return ""
    return "the file has no 'annotations', as that of a test split: nothing can be learnt or scored"


def _leave_out_boxless(annotations: list[Record]) -> str:
    """Take those with an empty list for a box out of a list; gives a finding or nothing."""
    if not any(record.get("bbox") == [] for record in annotations):
        return ""
    count = len(annotations)
    annotations[:] = [record for record in annotations if record.get("bbox") != []]
    return f"{count - len(annotations)} of {count} annotations have no box (points): left out"


def _place(images: Sequence[Record], folder: Path | None) -> str:
    """Give images the names of their files below the folder; gives a finding or nothing.

    LVIS has the address of an image (``coco_url``) in the place of a name, and Objects365 names
    that begin with ``images/v1/``: the last two parts count, or where the folder has no folder of
    that name, the last alone.
    """
    longer: dict[int, list[str]] = {}
    for index, image in enumerate(images):
        name, url = image.get("file_name"), image.get("coco_url")
        if name is None and isinstance(url, str):
            longer[index] = urlsplit(url).path.split("/")[-2:]
        elif isinstance(name, str) and _OBJECTS365.match(name):
            longer[index] = name.split("/")[-2:]
    above = {parts[0] for parts in longer.values()}
    absent = {name for name in above if folder is not None and not (folder / name).is_dir()}
    for index, parts in longer.items():
        images[index]["file_name"] = "/".join(parts[-1:] if parts[0] in absent else parts)
    if not longer:
        return ""
    first = min(longer)
    return (
        f"{len(longer)} of {len(images)} images are named by an address or a longer path, of which "
        f"the end is taken (the first: '{images[first]['file_name']}')"
    )


def _without_root(
    table: AnnotationTable, categories: Sequence[Record], label_of: IntArray
) -> tuple[AnnotationTable, str]:
    """The table without the category that stands above all others, and a finding or nothing.

    Roboflow adds one that no annotation uses, of the supercategory ``none``; it is that of all
    others.
    """
    roots = [at for at, one in enumerate(categories) if one.get("supercategory") == "none"]
    if len(roots) != 1 or len(table.categories) < 2 or (table.labels == label_of[roots[0]]).any():
        return table, ""
    root, name = int(label_of[roots[0]]), categories[roots[0]].get("name")
    others = [one for at, one in enumerate(categories) if label_of[at] != root]
    if any(one.get("supercategory") != name for one in others):
        return table, ""
    listed = table.categories
    kept = [label for label in range(len(listed)) if label != root]
    new_labels = np.full(len(listed), -1)
    new_labels[kept] = np.arange(len(kept))
    without = Categories(
        tuple(listed.names[label] for label in kept),
        tuple(listed.dataset_ids[label] for label in kept),
        listed.original_ids,
    )
    return table.relabelled(without, new_labels), (
        f"the category '{name}', which Roboflow puts above all others and no annotation uses, is "
        "left out"
    )


def _lvis_finding(images: Sequence[Record]) -> str:
    if not any(image.get(key) for image in images for key in _LVIS_KEYS):
        return ""
    return (
        "an LVIS file: of an image not every class is annotated, which LVIS's own metric allows "
        "for; here everything that is not annotated counts as a false alarm, so that AP is far "
        "lower than LVIS's"
    )


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


def _read_tree(path: Path, hook: Callable[[Record], Record | None]) -> Record:
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder, but COCO annotations are one JSON file (in a config, a folder "
            "of XML files is read with kind: voc)"
        )
    with _without_garbage_collection():
        tree = read_json(path, "annotation file", hook)
    if isinstance(tree, list):
        raise UserError(
            f"{path}: is a list, such as a results file, not a COCO annotation file (an object "
            "with 'images', 'annotations' and 'categories')"
        )
    if not isinstance(tree, dict):
        raise UserError(f"{path}: is not a COCO annotation file, but a single value")
    return tree


def _list_of(tree: Record, part: str, path: Path, problems: list[str]) -> list[Record]:
    records = tree.get(part)
    if records is None and part == "annotations" and not did_you_mean(part, tree.keys() - {part}):
        return []
    if part not in tree:
        raise UserError(
            f"{path}: is not a COCO annotation file: the key '{part}' is missing (it has "
            f"{', '.join(sorted(map(str, tree))[:10]) or 'none'})"
        )
    if not isinstance(records, list):
        problems.append(f"'{part}' must be a list, is {_shown(records)}")
        return []
    if not set(map(type, records)) <= {dict}:
        index = next(i for i, record in enumerate(records) if not isinstance(record, dict))
        problems.append(f"{part}[{index}] must be an object, is {_shown(records[index])}")
    return records


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


class _Records:
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
            f"must be {what}, is {_shown(record[key])}" if key in record else "this key is missing"
        )
        others = f" (and {len(wrong) - 1} more of '{self._part}')" if len(wrong) > 1 else ""
        self._problems.append(f"{self._where(index, key)}: {fault}{others}")

    def _pass_over(self, key: str, senseless: Sequence[int], what: str) -> None:
        if senseless:
            index = min(senseless)
            self.findings.append(
                f"{len(senseless)} of {len(self.records)} values of '{key}' in '{self._part}' make "
                f"no sense: {what} (the first: {self._where(index, key)} is "
                f"{_shown(self.records[index][key])})"
            )


def _is_side(values: FloatArray) -> BoolArray:
    # 0 and -1 are how tools write that they do not know it.
    is_whole: BoolArray = values == np.floor(values)
    return is_whole & (values >= -1) & (values < 2**31)


def _is_fraction(values: FloatArray) -> BoolArray:
    return (values >= 0) & (values <= 1)
