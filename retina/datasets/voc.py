"""Data sets in Pascal VOC's format: a folder of images and a folder of XML files.

Boxes are taken as written: x1 = xmin … y2 = ymax. VOC itself counted pixels from 1 and meant the
last pixel to belong to the box; most tools that write this format today count from 0 and mean
edges, and most readers (torchvision's users, Roboflow, albumentations) take the numbers as they
are. ``one_based=True`` takes x1 = xmin − 1, y1 = ymin − 1, which makes the same box of VOC's own
convention.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from retina.datasets.annotations import (
    AnnotationTable,
    name_array,
    refuse_outside_path,
    refuse_unprintable,
)
from retina.datasets.folder import FolderConfig
from retina.datasets.images import IMAGE_SUFFIXES
from retina.datasets.voc_file import VocImage, read_voc_file
from retina.errors import UserError
from retina.structures import Categories, IntArray


class VocConfig(FolderConfig):
    """A data set in Pascal VOC's format."""

    kind: Literal["voc"] = "voc"
    """A folder of images and a folder of XML files."""

    split: Path | None = None
    """A text file that lists the names of the images, one a line; unset: every XML file."""

    one_based: bool = False
    """Whether coordinates count pixels from 1, as in the original VOC data; otherwise they are
    taken as they are."""

    difficult_as_crowd: bool = True
    """Whether objects marked as difficult are ignored in training and evaluation, as crowd regions
    are. (VOC's own evaluation ignores them as well, though it pairs them with detections by IoU,
    where COCO's takes the share of the detection inside the region.)"""

    layout: ClassVar[str] = "Annotations/ with JPEGImages/"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether they are a folder."""
        return annotations.is_dir()

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """``Annotations/`` with ``JPEGImages/`` beside it."""
        images, annotations = folder / "JPEGImages", folder / "Annotations"
        is_there = images.is_dir() and annotations.is_dir()
        return cls(images=images, annotations=annotations) if is_there else None

    @property
    def display_name(self) -> str:
        """The path of the annotations, and of the list of images."""
        return str(self.annotations) if self.split is None else f"{self.annotations}, {self.split}"

    def split_listed_in(self, file: Path) -> Self | None:
        """The images that a text file lists."""
        return self.model_copy(update={"split": file})

    def split_named(self, name: str) -> Self | None:
        """What ``ImageSets/Main/NAME.txt`` lists, where it is there."""
        file = self.annotations.parent / "ImageSets" / "Main" / f"{name}.txt"
        return self.split_listed_in(file) if file.is_file() else None

    def read(self) -> AnnotationTable:
        """The XML files of the split.

        The categories are the names that occur in them, sorted. Every image gets the number that
        the digits of its name form, if all names have such numbers and no two the same, else 1, 2,
        … in the order of the names; annotations are numbered 1, 2, … in that order.
        """
        images, annotations, split = self.images, self.annotations, self.split
        if not annotations.is_dir():
            raise UserError(f"{annotations}: no such folder of Pascal VOC annotations (XML files)")
        if not images.is_dir():
            raise UserError(f"{images}: no such image folder (of the annotations {annotations})")
        names = (
            _names_in_folder(annotations) if split is None else _names_in_split(split, annotations)
        )
        parsed = [read_voc_file(annotations / f"{name}.xml") for name in names]
        return self._table(names, parsed)

    def _table(self, names: Sequence[str], parsed: Sequence[VocImage]) -> AnnotationTable:
        file_names, renamed = _file_names(names, parsed, self.images)
        objects = [one for image in parsed for one in image.objects]
        listed = Categories.from_names(sorted({one.name for one in objects}))
        for name in listed.names:
            refuse_unprintable(name, f"{self.annotations}: a <name>")
        label_of = {name: label for label, name in enumerate(listed.names)}
        counts = [len(image.objects) for image in parsed]
        boxes = np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, :2] -= 1.0 if self.one_based else 0.0
        boxes[:, 2:] -= boxes[:, :2]
        is_difficult = np.array([one.is_difficult for one in objects], dtype=bool)
        return AnnotationTable(
            source=str(self.split or self.annotations),
            categories=listed,
            image_ids=numbers_of_names(names),
            file_names=name_array(file_names),
            image_sizes=np.array([image.size for image in parsed], dtype=np.int64).reshape(-1, 2),
            annotation_ids=np.arange(1, len(objects) + 1),
            image_indices=np.repeat(np.arange(len(parsed)), counts).astype(np.int64),
            labels=np.array([label_of[one.name] for one in objects], dtype=np.int64),
            boxes_xywh=boxes,
            areas=np.abs(boxes[:, 2] * boxes[:, 3]),
            is_crowd=is_difficult & self.difficult_as_crowd,
            occluded_fractions=np.full(len(objects), np.nan),
        ).with_findings(
            renamed, _difficult_finding(int(is_difficult.sum()), self.difficult_as_crowd)
        )


def numbers_of_names(names: Sequence[str]) -> IntArray:
    """The image ids: the digits of each name as a number, or 1, 2, … if that is not unique."""
    digits = [re.sub("[^0-9]", "", name) for name in names]
    numbers = [int(text) if 0 < len(text) <= 15 else -1 for text in digits]
    if min(numbers) >= 0 and len(set(numbers)) == len(numbers):
        return np.array(numbers, dtype=np.int64)
    ranks = {name: rank for rank, name in enumerate(sorted(names), start=1)}
    return np.array([ranks[name] for name in names], dtype=np.int64)


def _names_in_folder(annotations: Path) -> list[str]:
    names = sorted(path.stem for path in annotations.glob("*.xml"))
    if not names:
        raise UserError(f"{annotations}: the data set is empty: there is no XML file")
    return names


def _names_in_split(split: Path, annotations: Path) -> list[str]:
    try:
        lines = split.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{split}: no such split file (a list of image names)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{split}: the split file cannot be read: {error}") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"{split}: the data set is empty: the split file lists no name")
    seen: dict[str, int] = {}
    missing = []
    for number, name in numbered:
        refuse_outside_path(name, f"{split}, line {number}")
        if name in seen:
            raise UserError(f"{split}, line {number}: '{name}' stands in line {seen[name]} already")
        seen[name] = number
        if not (annotations / f"{name}.xml").is_file():
            missing.append(f"'{name}' (line {number})")
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UserError(
            f"{split}: {len(missing)} of {len(numbered)} names have no XML file in {annotations}: "
            f"{shown}; a line holds the name of an image without its suffix"
        )
    return list(seen)


def _file_names(
    names: Sequence[str], parsed: Sequence[VocImage], folder: Path
) -> tuple[list[str], str]:
    """The image file of every annotation file, and a finding or nothing.

    An image is the file with the same stem; what the XML says itself counts only where there is
    none, since it is often out of date.
    """
    listings: dict[str, dict[str, str]] = {}
    files, renamed = [], 0
    for name, image in zip(names, parsed, strict=True):
        parent, _, stem = name.rpartition("/")
        if parent not in listings:
            listings[parent] = _images_by_stem(folder / parent)
        found = listings[parent].get(stem)
        if found is not None:
            files.append(f"{parent}/{found}" if parent else found)
            renamed += bool(image.file_name) and image.file_name != found
        else:
            named = image.file_name or f"{name}.jpg"
            refuse_outside_path(named, f"{name}.xml: <filename>")
            files.append(named)
    finding = (
        f"{renamed} of {len(names)} annotation files name another image file than the one with "
        "their own name, which is used"
    )
    return files, finding if renamed else ""


def _images_by_stem(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    rank = {suffix: number for number, suffix in enumerate(IMAGE_SUFFIXES)}
    found = [(Path(name).suffix.lower(), name) for name in sorted(os.listdir(folder))]  # noqa: PTH208
    found = [(suffix, name) for suffix, name in found if suffix in rank]
    found.sort(key=lambda one: -rank[one[0]])  # of several files with one stem a JPEG wins
    return {Path(name).stem: name for _, name in found}


def _difficult_finding(count: int, difficult_as_crowd: bool) -> str:
    if not count:
        return ""
    meaning = "ignored in training and evaluation" if difficult_as_crowd else "taken as any other"
    return f"{count} object{'' if count == 1 else 's'} marked as difficult: {meaning}"
