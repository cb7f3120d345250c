"""Data sets whose annotations are a CSV file with a row per box.

Read are TensorFlow's, Open Images', keras-retinanet's, Kaggle's and other tables: the columns are
found by their names, or without a header by what stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from retina.datasets.annotations import AnnotationTable
from retina.datasets.file_listing import list_files
from retina.datasets.folder import SPLIT_NAMES, FolderConfig
from retina.datasets.formats.csv_classes import ClassFile, classes_beside
from retina.datasets.formats.csv_columns import BoxShape
from retina.datasets.formats.csv_file import (
    FARTHEST,
    CsvRows,
    Unit,
    csv_columns,
    is_via_table,
    names_in_csv,
    read_csv_rows,
    splits_named_in,
    unit_of,
)
from retina.datasets.formats.image_finding import find_images, holds_images
from retina.datasets.formats.table_builder import TableBuilder
from retina.structures import Categories, FloatArray

_SUFFIXES = (".csv", ".tsv")
_FOLDERS = ("", "annotations", "data", "labels", "csv")
"""Where the CSV files of a data set lie, below its folder."""


class CsvConfig(FolderConfig):
    """A data set whose annotations are a CSV file."""

    kind: Literal["csv"] = "csv"
    """A folder of images and one CSV file with a row per box."""

    split: Literal["train", "validation", "test"] | None = None
    """Only the rows of this split, by the column ``split``, ``set`` or ``subset``; unset: all."""

    box: Literal["auto", "xyxy", "xywh", "centre"] = "auto"
    """What the four numbers of a box are; ``auto`` goes by the names of the columns."""

    unit: Literal["auto", "pixels", "fractions"] = "auto"
    """Whether boxes are in pixels or in fractions of their image; ``auto`` goes by the numbers."""

    title: ClassVar[str] = "CSV"
    layout: ClassVar[str] = "a CSV file of boxes with its images"

    @property
    def has_category_ids(self) -> bool:
        """Whether a list of classes beside the file gives them."""
        classes = classes_beside(self.annotations)
        return classes is not None and bool(classes.ids)

    @property
    def display_name(self) -> str:
        """The path of the file, and the split."""
        return str(self.annotations) if self.split is None else f"{self.annotations}, {self.split}"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether they are a CSV file, and not the VGG Image Annotator's."""
        is_csv = annotations.name.lower().removesuffix(".gz").endswith(_SUFFIXES)
        return is_csv and annotations.is_file() and not is_via_table(annotations)

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """The only CSV file of boxes in the folder, with its images."""
        files = _files_in(folder)
        images = cls.images_of(files[0]) if len(files) == 1 else None
        return None if images is None else cls(images=images, annotations=files[0])

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """Files named after splits (``train_labels.csv``), a column of one, or split folders."""
        for below in _FOLDERS:
            files = _files_in(folder / below)
            named = {_split_of(file): file for file in reversed(files)}
            found = {
                split: cls(images=images, annotations=named[split])
                for split in SPLIT_NAMES
                if split in named and (images := cls.images_of(named[split])) is not None
            }
            if found:
                return found
            if len(files) == 1 and (inside := cls.splits_of(files[0])):
                return inside
        return super().splits_in(folder)

    @classmethod
    def splits_of(cls, file: Path) -> dict[str, Self]:
        """Those that a column of the file names."""
        images = cls.images_of(file)
        if images is None:
            return {}
        return {
            split: cls.model_validate({"images": images, "annotations": file, "split": split})
            for split in splits_named_in(file)
        }

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The folder near the file that holds the first images that it names."""
        names = names_in_csv(annotations, most=5)
        near = (folder for folder in _folders_near(annotations) if folder.is_dir())
        return next((folder for folder in near if holds_images(folder, names)), None)

    def read(self) -> AnnotationTable:
        """The rows of the file.

        The categories are the names that occur, sorted, or those of a list of classes beside it.
        """
        shape: BoxShape | None = None if self.box == "auto" else self.box
        rows = read_csv_rows(self.annotations, shape, self.split)
        unit = unit_of(rows.corners) if self.unit == "auto" else self.unit
        builder = TableBuilder(self.display_name, in_fractions=unit == "fractions")
        files, found = find_images(rows.names, self.images)
        classes = classes_beside(self.annotations)
        images = [
            builder.image(file, where=f"line {line}")
            for file, line in zip(files, rows.image_lines, strict=True)
        ]
        for (image, size), line in rows.sizes.items():
            builder.image(files[image], size, where=f"line {line}")
        names = _class_names(rows, classes, builder.problems)
        for at, label in enumerate(rows.class_rows):
            x1, y1, x2, y2 = rows.corners[at].tolist()
            builder.box(
                images[rows.image_rows[at]],
                names[label],
                (x1, y1, x2, y2),
                where=f"line {rows.lines[at]}",
                is_crowd=bool(rows.crowds[at]),
            )
        builder.problems += _no_fractions(rows) if unit == "fractions" else []
        builder.findings += [
            f"read as {rows.columns.describe(unit)}",
            *([] if classes is None else [f"the classes are those of {classes.path}"]),
            *filter(None, (found, _tiny_finding(rows.corners, unit))),
        ]
        return _built(builder, classes)


def _files_in(folder: Path) -> list[Path]:
    files = list_files(folder, _SUFFIXES, deep=False).files
    return [file for file in files if csv_columns(file) is not None]


def _split_of(file: Path) -> str:
    """The split that the name of a file says; empty where it says none."""
    words = set(re.split(r"[\W_]+", file.stem.lower()))
    return next((split for split, names in SPLIT_NAMES.items() if words & set(names)), "")


def _folders_near(file: Path) -> Iterator[Path]:
    """Where the images of a file may lie: by its split, in ``images/``, beside it; one up."""
    names = SPLIT_NAMES.get(_split_of(file), ())
    above = file.parent.parent if file.parent.name else file.absolute().parent.parent
    for folder in (file.parent, above):
        for name in names:
            yield from (folder / name / "images", folder / name, folder / "images" / name)
        yield from (folder / "images", folder / "JPEGImages")
        if folder != above:
            yield folder


def _class_names(rows: CsvRows, classes: ClassFile | None, problems: list[str]) -> list[str]:
    """The names of the classes, by the list of classes where there is one."""
    if classes is None:
        return list(rows.class_names)
    names = [_listed_name(name, classes) for name in rows.class_names]
    for label, name in enumerate(names):
        if classes.ids and name not in classes.ids:
            line = rows.lines[rows.class_rows.index(label)]
            problems.append(f"line {line}: the class '{name[:60]}' is not in {classes.path}")
    return names


def _listed_name(name: str, classes: ClassFile) -> str:
    by_id = {} if name in classes.ids else {str(at): one for one, at in classes.ids.items()}
    return classes.names.get(name) or by_id.get(name) or name


def _built(builder: TableBuilder, classes: ClassFile | None) -> AnnotationTable:
    if classes is None or not classes.ids:
        return builder.build()
    table = builder.build(list(classes.ids))
    listed = Categories(tuple(classes.ids), tuple(classes.ids.values()))
    return replace(table, categories=listed)


def _no_fractions(rows: CsvRows) -> list[str]:
    """The boxes that are no fractions, where most of the file are."""
    wrong = np.flatnonzero(np.abs(rows.corners).max(axis=1, initial=0) > FARTHEST).tolist()
    return [
        f"line {rows.lines[at]}: the box {_shown(rows.corners[at])} is no fraction of its image, "
        "as most of the file are; write all of them alike, or say unit: pixels"
        for at in wrong
    ]


def _tiny_finding(corners: FloatArray, unit: Unit) -> str:
    """A sentence on boxes within the first pixel of their image, which may be fractions."""
    if unit == "fractions":
        return ""
    tiny = (np.abs(corners).max(axis=1, initial=0) <= 1) & (corners != corners.round()).any(axis=1)
    count = int(tiny.sum())
    boxes = "1 box lies" if count == 1 else f"{count} boxes lie"
    return (
        f"{boxes} within the first pixel of the image: are these fractions, among pixels?"
        if count
        else ""
    )


def _shown(box: Sequence[float] | FloatArray) -> str:
    return "[" + ", ".join(f"{side:.6g}" for side in box) + "]"
