"""Data sets exported as "CVAT for images 1.1": one XML file beside a folder of images."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, Self
from xml.etree import ElementTree

from retina.datasets.annotations import AnnotationTable
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.folder import SPLIT_NAMES, FolderConfig
from retina.datasets.formats.image_folders import (
    IMAGE_FOLDERS,
    folder_of_images,
    holds_images,
    is_there,
)
from retina.datasets.formats.image_stems import ImageStems
from retina.datasets.formats.shapes import (
    box_around,
    box_of_ellipse,
    box_of_turned_box,
    boxless_finding,
    finite_numbers,
)
from retina.datasets.formats.table_builder import Box, TableBuilder
from retina.datasets.formats.xml_files import parse_xml, root_tag
from retina.datasets.optional_values import flag_of
from retina.errors import UserError
from retina.structures import Size
from retina.text_files import read_beginning, read_text

_BOXLESS = frozenset({"polyline", "points", "tag", "skeleton"})
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_CUBOID = tuple(f"{{}}{corner}{side}" for side in (1, 2) for corner in ("tl", "bl", "tr", "br"))
_MOST_FILES = 20
_SPLIT_NAMES = {name for names in SPLIT_NAMES.values() for name in names}
_NAME = re.compile(r'<image\s[^>]*?\bname="([^"]*)"')
_SUBSET = re.compile(r'<image\s[^>]*?\bsubset="([^"]*)"')


class CvatConfig(FolderConfig):
    """A data set in CVAT's own format."""

    kind: Literal["cvat"] = "cvat"
    """A folder of images and one XML file of CVAT (for images 1.1)."""

    subset: str | None = None
    """Take only the images of this subset of CVAT's, in any case; unset: all images."""

    title: ClassVar[str] = "CVAT for images"
    layout: ClassVar[str] = "CVAT's annotations.xml with images/"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether it is an XML file with the root ``<annotations>``."""
        return annotations.suffix.lower() == ".xml" and root_tag(annotations) == "annotations"

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """``annotations.xml``, or the only file that is CVAT's, with its images beside it."""
        files = list_files(folder, [".xml"], deep=False).files[:_MOST_FILES]
        files = tuple(filter(cls.recognises, files))
        usual = folder / "annotations.xml"
        file = usual if usual in files else files[0] if len(files) == 1 else None
        images = None if file is None else cls.images_of(file)
        return None if file is None or images is None else cls(images=images, annotations=file)

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """The subsets in the file, or subfolders with a file each."""
        whole = cls.find_in(folder)
        return super().splits_in(folder) if whole is None else cls.splits_of(whole.annotations)

    @classmethod
    def splits_of(cls, file: Path) -> dict[str, Self]:
        """The subsets that are called as splits are."""
        images = cls.images_of(file)
        if images is None:
            return {}
        subsets = {name.lower() for name in _SUBSET.findall(read_text(file, "annotation file"))}
        return {
            split: cls(images=images, annotations=file, subset=name)
            for split, names in SPLIT_NAMES.items()
            for name in names
            if name in subsets
        }

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The folder that holds the images that the file names."""
        folder, names = annotations.parent, _NAME.findall(read_beginning(annotations))
        named = [Path(name).name for name in names]
        beside = [*(folder / name for name in IMAGE_FOLDERS), folder]
        found = folder_of_images(beside, names) or folder_of_images(beside, named)
        # Those of a project lie in a folder for each subset.
        return found or next(filter(Path.is_dir, beside[:-1]), None)

    @property
    def display_name(self) -> str:
        """The path of the file, and the subset."""
        return (
            str(self.annotations) if self.subset is None else f"{self.annotations}, {self.subset}"
        )

    def read(self) -> AnnotationTable:
        """The images of the file, with the boxes around their shapes.

        The categories are the labels of the task, and others that occur. Shapes without a box
        (lines, points, tags, skeletons) are passed over.
        """
        root = parse_xml(self.annotations)
        if root.tag != "annotations":
            raise UserError(f"{self.annotations}: is not CVAT's: its root is <{root.tag}>")
        if root.find("track") is not None and root.find("image") is None:
            raise UserError(
                f"{self.annotations}: is 'CVAT for video', whose tracks are not read; export the "
                "task as 'CVAT for images 1.1', which has the boxes of every frame"
            )
        reader = _Reader(str(self.annotations), self.images)
        num_unsplit = 0
        for element in root.iterfind("image"):
            subset = element.get("subset", "")
            if self.subset is None or subset.lower() == self.subset.lower():
                reader.read(element, subset)
            num_unsplit += self.subset is not None and subset.lower() not in _SPLIT_NAMES
        return reader.table(list(_labels(root))).with_findings(
            f"{num_unsplit} of the images are in a subset that is called as no split: in none"
            if num_unsplit
            else ""
        )


class _Reader:
    """Puts the images of a file together."""

    def __init__(self, source: str, images: Path) -> None:
        self._builder = TableBuilder(source)
        self._images = images
        self._stems: dict[str, ImageStems] = {}
        self._boxless: Counter[str] = Counter()
        self._outside = 0
        self._turned = 0
        self._names: set[str] = set()

    def read(self, element: ElementTree.Element, subset: str) -> None:
        """Add an image."""
        told = element.get("name", "")
        where = f"image '{told}'"
        image = self._builder.image(self._file_name(told, subset), _size(element), where=where)
        for number, shape in enumerate(element, start=1):
            place = f"{where}: shape {number} (<{shape.tag}>)"
            if shape.tag not in _READERS:
                self._boxless[str(shape.tag)] += 1
                continue
            if flag_of(shape.get("outside")):
                self._outside += 1
                continue
            box = _READERS[str(shape.tag)](shape)
            if box is None:
                self._builder.problems.append(f"{place}: lacks numbers of its box: {_shown(shape)}")
                continue
            self._turned += shape.tag == "box" and shape.get("rotation") is not None
            name = shape.get("label", "").strip()
            self._names.add(name)
            self._builder.box(image, name, box, where=place)

    def table(self, labels: list[str]) -> AnnotationTable:
        """All images together.

        Args:
            labels: of the task, in its order.

        Raises:
            UserError: they cannot be used; names all that is wrong.
        """
        turned, outside = self._turned, self._outside
        self._builder.findings += filter(
            None,
            (
                boxless_finding(self._boxless),
                f"{turned} of the boxes are turned: the upright box around each is taken"
                if turned
                else "",
                f"{outside} of the shapes are outside of their image: left out" if outside else "",
            ),
        )
        return self._builder.build([*labels, *sorted(self._names.difference(labels))])

    def _file_name(self, told: str, subset: str) -> str:
        """The file of an image: projects have a folder for each subset, frames have no suffix."""
        name = told.replace("\\", "/")
        if subset and not is_there(self._images / name):
            within = f"{subset}/{name}"
            name = within if holds_images((self._images / within).parent) else name
        if name.lower().endswith(IMAGE_SUFFIXES):
            return name
        parent, _, stem = name.rpartition("/")
        if parent not in self._stems:
            self._stems[parent] = ImageStems(self._images / parent)
        found = self._stems[parent].find(stem)
        return name if found is None else f"{parent}/{found}" if parent else found


def _labels(root: ElementTree.Element) -> Iterator[str]:
    """The labels of a task or project that a box can have, those of parts of skeletons not."""
    for labels in root.iterfind("meta//labels"):
        for label in labels.iterfind("label"):
            name = (label.findtext("name") or "").strip()
            if name and label.findtext("type") not in _BOXLESS and label.find("parent") is None:
                yield name


def _size(element: ElementTree.Element) -> Size | None:
    numbers = finite_numbers([element.get("height"), element.get("width")])
    if numbers is None or min(numbers) < 1:
        return None
    return int(numbers[0]), int(numbers[1])


def _numbers(shape: ElementTree.Element, *keys: str) -> list[float] | None:
    return finite_numbers([shape.get(key) for key in keys])


def _plain_box(shape: ElementTree.Element) -> Box | None:
    corners = _numbers(shape, *_CORNERS)
    turn = finite_numbers([shape.get("rotation", 0)])
    if corners is None or turn is None:
        return None
    x1, y1, x2, y2 = corners
    box = (x1, y1, x2, y2)
    return box_of_turned_box(box, math.radians(turn[0])) if turn[0] else box


def _polygon(shape: ElementTree.Element) -> Box | None:
    points = [point.split(",") for point in shape.get("points", "").split(";") if point.strip()]
    if not points or any(len(point) != 2 for point in points):
        return None
    numbers = finite_numbers([side.strip() for point in points for side in point])
    return None if numbers is None else box_around(numbers[::2], numbers[1::2])


def _ellipse(shape: ElementTree.Element) -> Box | None:
    numbers = _numbers(shape, "cx", "cy", "rx", "ry")
    turn = finite_numbers([shape.get("rotation", 0)])
    if numbers is None or turn is None:
        return None
    x, y, a, b = numbers
    return box_of_ellipse((x, y), (a, b), math.radians(turn[0]))


def _mask(shape: ElementTree.Element) -> Box | None:
    numbers = _numbers(shape, "left", "top", "width", "height")
    if numbers is None:
        return None
    left, top, width, height = numbers
    return left, top, left + width, top + height


def _cuboid(shape: ElementTree.Element) -> Box | None:
    xs = _numbers(shape, *(corner.format("x") for corner in _CUBOID))
    ys = _numbers(shape, *(corner.format("y") for corner in _CUBOID))
    return None if xs is None or ys is None else box_around(xs, ys)


_READERS = {
    "box": _plain_box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
    "cuboid": _cuboid,
}


def _shown(shape: ElementTree.Element) -> str:
    text = " ".join(f'{key}="{value}"' for key, value in shape.attrib.items() if key != "rle")
    return f"<{shape.tag} {text[:100]}>"
