"""A COCO annotation file as arrays, or one clear error that says all that is wrong in it.

Fields that decide neither an image nor a class nor a box (``area``, ``iscrowd``, sizes, ids of
annotations) may be missing or senseless: their default is taken, and counted.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.categories import duplicate_name_finding
from retina.datasets.formats.coco_annotations import IrregularError, RegularAnnotations
from retina.datasets.formats.coco_records import Record, Records, is_fraction, shown
from retina.datasets.formats.lvis_keys import Listed, federation_of, lvis_finding
from retina.datasets.repeated import merge_categories, merge_images
from retina.errors import UserError, all_problems, did_you_mean
from retina.structures import Categories, IntArray
from retina.text_files import read_json
from retina.wording import counted

_OBJECTS365 = re.compile(r"images/v\d/[^/]+/[^/]+$")

WITHOUT_ANNOTATIONS = (
    "the file has no 'annotations', as that of a test split: nothing can be learnt or scored"
)
"""What the report of such a file says."""


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
        Records(part, _list_of(tree, part, path, problems), problems)
        for part in ("images", "categories")
    )
    annotations: RegularAnnotations | Records
    boxless = ""
    if regular is None:
        records = _list_of(tree, "annotations", path, problems)
        boxless = "" if problems else _leave_out_boxless(records)
        annotations = Records("annotations", records, problems)
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
        occluded_fractions=annotations.optional_numbers("occluded_fraction", is_fraction),
        original_image_ids=image_ids.originals,
        image_aliases=merged.aliases,
        federation=federation_of(
            Listed(images.records, image_ids, merged.row_of),
            Listed(categories.records, category_ids, label_of),
        ),
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
        lvis_finding(images.records),
    )


def _repeated_categories(count: int) -> str:
    repeat = "repeats" if count == 1 else "repeat"
    entries = counted(count, "entry", "of 'categories'")
    return f"{entries} {repeat} another one: merged" if count else ""


def _without_annotations(tree: Record) -> str:
    if tree.get("annotations") is not None:
        return ""
    return WITHOUT_ANNOTATIONS


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
        problems.append(f"'{part}' must be a list, is {shown(records)}")
        return []
    if not set(map(type, records)) <= {dict}:
        index = next(i for i, record in enumerate(records) if not isinstance(record, dict))
        problems.append(f"{part}[{index}] must be an object, is {shown(records[index])}")
    return records
