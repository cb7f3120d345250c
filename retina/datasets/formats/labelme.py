"""Data sets of LabelMe and the tools that write its format: a JSON file for each image.

A picture without a JSON file is left out, not taken as one without objects: LabelMe writes the file
once a picture is saved, so that one without may not have been looked at yet, and its objects would
be taught as background. A file without shapes is an image without objects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from retina.datasets.annotations import AnnotationTable
from retina.datasets.file_listing import list_files
from retina.datasets.formats.image_stems import ImageStems
from retina.datasets.formats.json_kinds import json_kind
from retina.datasets.formats.per_image import FilePerImageConfig
from retina.datasets.formats.shapes import (
    box_around,
    box_of_ellipse,
    boxless_finding,
    finite_numbers,
)
from retina.datasets.formats.table_builder import Box, TableBuilder
from retina.errors import UserError
from retina.structures import Size
from retina.text_files import read_json
from retina.wording import counted

_BOXLESS = frozenset({"point", "points", "line", "linestrip"})
_PARTS_OF_ONE = frozenset({"polygon", "mask"})
"""Shapes of one label and group are one object: what of it shows beside what hides the rest."""


class LabelmeConfig(FilePerImageConfig):
    """A data set in LabelMe's format."""

    kind: Literal["labelme"] = "labelme"
    """A folder of images and a folder of LabelMe's JSON files, which may be the same."""

    title: ClassVar[str] = "LabelMe"
    layout: ClassVar[str] = "LabelMe's JSON files beside the images or in annotations/"
    suffix: ClassVar[str] = ".json"

    @classmethod
    def describes_an_image(cls, file: Path) -> bool:
        """Whether the JSON file has the keys of LabelMe."""
        return json_kind(file) == "labelme"

    def read(self) -> AnnotationTable:
        """The JSON files.

        The categories are the labels that occur in them, sorted. A file's image is the one that it
        names, wherever it says that this lies, or else the one with its own name.
        """
        reader = _Reader(self.annotations, self.images)
        for file in self._files():
            reader.read(file)
        return reader.table()

    def _files(self) -> Sequence[Path]:
        if not self.annotations.exists():
            raise UserError(f"{self.annotations}: no such folder of LabelMe's JSON files")
        if not self.images.is_dir():
            raise UserError(f"{self.images}: no such image folder (of {self.annotations})")
        if self.annotations.is_file():
            return [self.annotations]
        files = list_files(self.annotations, [self.suffix], deep=False).files
        if not files:
            raise UserError(f"{self.annotations}: the data set is empty: there is no JSON file")
        return files


class _Reader:
    """Puts LabelMe's files together."""

    def __init__(self, annotations: Path, images: Path) -> None:
        self._builder = TableBuilder(str(annotations))
        self._images = ImageStems(images)
        self._names_alone = annotations.is_file()
        self._used: set[str] = set()
        self._foreign: list[str] = []
        self._boxless: Counter[str] = Counter()
        self._grouped = 0
        self._unsized = 0

    def read(self, file: Path) -> None:
        """Add what a file holds, or what is wrong with it."""
        try:
            tree = read_json(file, "annotation file", _without_pixels)
        except UserError as error:
            self._builder.problems.append(str(error))
            return
        if not isinstance(tree, dict) or "shapes" not in tree:
            self._foreign.append(file.name)
            return
        name = self._image_name(tree, file)
        self._used.add(name)
        image = self._builder.image(name, self._size(tree), where=file.name)
        shapes = tree["shapes"]
        if not isinstance(shapes, list):
            self._builder.problems.append(f"{file.name}: 'shapes' must be a list")
            return
        parts: dict[tuple[str, str], list[Box]] = {}
        for number, shape in enumerate(shapes):
            where = f"{file.name}: shapes[{number}]"
            box = self._box(shape, where)
            if box is None:
                continue
            label = _text(shape.get("label"))
            group = shape.get("group_id")
            if group is None or _kind(shape) not in _PARTS_OF_ONE:
                self._builder.box(image, label, box, where=where)
            else:
                parts.setdefault((label, str(group)), []).append(box)
        for (label, _), boxes in parts.items():
            self._grouped += len(boxes) > 1
            x1, y1, x2, y2 = zip(*boxes, strict=True)
            whole = (min(x1), min(y1), max(x2), max(y2))
            self._builder.box(image, label, whole, where=f"{file.name}: a group of shapes")

    def table(self) -> AnnotationTable:
        """All files together.

        Raises:
            UserError: they cannot be used; names all that is wrong.
        """
        builder = self._builder
        if self._foreign and not self._used and not builder.problems:
            builder.problems.append(f"{self._foreign[0]}: is not LabelMe's: it has no 'shapes'")
        num_unlabelled = len(self._images.names - self._used) if not self._names_alone else 0
        builder.findings += filter(
            None,
            (
                boxless_finding(self._boxless),
                _some(self._grouped, "object", "of several shapes of one group_id: the box around "
                      "them is taken"),
                _some(self._unsized, "file", "with an imageWidth or imageHeight that makes no "
                      "sense: read from the image"),
                _some(len(self._foreign), "JSON file", "that is not LabelMe's passed over "
                      f"(the first: {self._foreign[0]})" if self._foreign else ""),
                _some(num_unlabelled, "image", "without a JSON file left out, since it may not "
                      "have been labelled yet; one without objects needs a file with no shapes"),
            ),
        )  # fmt: skip
        return builder.build()

    def _image_name(self, tree: dict[str, Any], file: Path) -> str:
        told = tree.get("imagePath")
        name = PurePosixPath(told.replace("\\", "/")).name if isinstance(told, str) else ""
        if name in self._images.names:
            return name
        found = self._images.find(file.stem) or self._images.find(PurePosixPath(name).stem)
        return found or name or f"{file.stem}.jpg"

    def _size(self, tree: dict[str, Any]) -> Size | None:
        sides = [tree.get(key) for key in ("imageHeight", "imageWidth")]
        if None in sides:
            return None
        numbers = finite_numbers(sides)
        if numbers is None or any(side < 1 or side != int(side) for side in numbers):
            self._unsized += 1
            return None
        return int(numbers[0]), int(numbers[1])

    def _box(self, shape: object, where: str) -> Box | None:
        """The box around a shape; None where it has none, or is none, which is then told."""
        if not isinstance(shape, dict):
            self._builder.problems.append(f"{where} must be an object")
            return None
        kind = _kind(shape)
        if kind in _BOXLESS:
            self._boxless[kind] += 1
            return None
        points = _points(shape.get("points"))
        if points is None or len(points[0]) < (1 if kind == "polygon" else 2):
            self._builder.problems.append(
                f"{where} ({kind} '{_text(shape.get('label'))}'): 'points' must be a list of "
                "[x, y] in pixels, as many as the shape needs"
            )
            return None
        xs, ys = points
        if kind == "circle":
            radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
            return box_of_ellipse((xs[0], ys[0]), (radius, radius))
        return box_around(xs, ys)


def _kind(shape: dict[str, Any]) -> str:
    """The kind of a shape; version 3 had only polygons, and did not say so."""
    return str(shape.get("shape_type") or "polygon")


def _without_pixels(record: dict[str, Any]) -> dict[str, Any]:
    # Whole images as text, which would fill the memory.
    for key in ("imageData", "mask"):
        record.pop(key, None)
    return record


def _points(given: object) -> tuple[list[float], list[float]] | None:
    if not isinstance(given, list) or not all(isinstance(p, list) and len(p) == 2 for p in given):
        return None
    numbers = finite_numbers([side for point in given for side in point])
    return None if numbers is None else (numbers[::2], numbers[1::2])


def _text(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _some(count: int, noun: str, what: str) -> str:
    return counted(count, noun, what) if count else ""
