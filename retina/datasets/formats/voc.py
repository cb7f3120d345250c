"""Data sets in Pascal VOC's format: a folder of images and a folder of XML files.

Boxes are taken as written: x1 = xmin … y2 = ymax. VOC itself counted pixels from 1 and meant the
last pixel to belong to the box; most tools that write this format today count from 0 and mean
edges, and most readers (torchvision's users, Roboflow, albumentations) take the numbers as they
are. ``one_based=True`` takes x1 = xmin − 1, y1 = ymin − 1, which makes the same box of VOC's own
convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, Self

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array, path_fault, text_fault
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.formats.image_stems import ImageStems
from retina.datasets.formats.per_image import FilePerImageConfig
from retina.datasets.formats.voc_file import VocImage, read_voc_file
from retina.datasets.formats.xml_files import root_tag
from retina.datasets.ids import Ids, numbers_of_names
from retina.datasets.repeated import merge_images, plain_path
from retina.errors import UserError, all_problems
from retina.structures import Categories
from retina.text_files import read_text
from retina.wording import counted

_LISTS = ("ImageSets/Main", "ImageSets", "splits")


class VocConfig(FilePerImageConfig):
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

    title: ClassVar[str] = "Pascal VOC"
    layout: ClassVar[str] = "Annotations/ with JPEGImages/"
    suffix: ClassVar[str] = ".xml"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether they are a folder or an XML file, which no other format has."""
        return annotations.is_dir() or annotations.suffix.lower() == ".xml"

    @classmethod
    def describes_an_image(cls, file: Path) -> bool:
        """Whether the root of the XML file is ``<annotation>``."""
        return root_tag(file) == "annotation"

    @property
    def display_name(self) -> str:
        """The path of the annotations, and of the list of images."""
        return str(self.annotations) if self.split is None else f"{self.annotations}, {self.split}"

    def split_listed_in(self, file: Path) -> Self | None:
        """The images that a text file lists."""
        return self.model_copy(update={"split": file})

    def split_named(self, name: str) -> Self | None:
        """What ``NAME.txt`` in a folder of lists (`_LISTS`) beside the annotations says."""
        lists = (self.annotations.parent / folder / f"{name}.txt" for folder in _LISTS)
        file = next(filter(Path.is_file, lists), None)
        return None if file is None else self.split_listed_in(file)

    def read(self) -> AnnotationTable:
        """The XML files of the split.

        The categories are the names that occur in them, sorted. Every image gets the number that
        the digits of its name form, if all names have such numbers and no two the same, else 1, 2,
        … in the order of the names; annotations are numbered 1, 2, … in that order.
        """
        images, annotations, split = self.images, self.annotations, self.split
        if not annotations.exists():
            raise UserError(f"{annotations}: no such folder of Pascal VOC annotations (XML files)")
        if not images.is_dir():
            raise UserError(f"{images}: no such image folder (of the annotations {annotations})")
        files, listed_twice = _xml_files(annotations), ""
        if split is not None:
            files, listed_twice = _files_in_split(split, annotations, files)
        return self._table(
            list(files), _read_all(list(files.values()), str(annotations))
        ).with_findings(listed_twice)

    def _table(self, names: Sequence[str], parsed: Sequence[VocImage]) -> AnnotationTable:
        objects = [one for image in parsed for one in image.objects]
        listed = Categories.from_names(sorted({one.name for one in objects}))
        problems = [f"a <name>: {fault}" for fault in map(text_fault, listed.names) if fault]
        file_names, renamed = _file_names(names, parsed, self.images, problems)
        merged = merge_images(
            Ids(numbers_of_names(names)),
            file_names,
            np.array([image.size for image in parsed], dtype=np.int64).reshape(-1, 2),
            problems,
            entry_name=lambda entry: f"{names[entry]}.xml",
        )
        if problems:
            raise UserError(all_problems(str(self.annotations), problems))
        label_of = {name: label for label, name in enumerate(listed.names)}
        counts = [len(image.objects) for image in parsed]
        boxes = np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, :2] -= 1.0 if self.one_based else 0.0
        boxes[:, 2:] -= boxes[:, :2]
        is_difficult = np.array([one.is_difficult for one in objects], dtype=bool)
        return AnnotationTable(
            source=str(self.split or self.annotations),
            categories=listed,
            image_ids=merged.ids,
            file_names=name_array(merged.file_names),
            image_sizes=merged.sizes,
            annotation_ids=np.arange(1, len(objects) + 1),
            image_indices=np.repeat(merged.row_of, counts),
            labels=np.array([label_of[one.name] for one in objects], dtype=np.int64),
            boxes_xywh=boxes,
            areas=np.abs(boxes[:, 2] * boxes[:, 3]),
            is_crowd=is_difficult & self.difficult_as_crowd,
            occluded_fractions=np.full(len(objects), np.nan),
            image_aliases=merged.aliases,
            is_difficult=is_difficult,
        ).with_findings(
            renamed,
            merged.finding,
            _senseless_finding(names, parsed),
            _difficult_finding(int(is_difficult.sum()), self.difficult_as_crowd),
        )


def _xml_files(annotations: Path) -> dict[str, Path]:
    """The annotation files of a folder, by the names of their images; or the only one."""
    if annotations.is_file():
        return {annotations.stem: annotations}
    files = list_files(annotations, [".xml"], deep=False).files
    if not files:
        raise UserError(f"{annotations}: the data set is empty: there is no XML file")
    return {path.stem: path for path in files}


def _read_all(files: Sequence[Path], source: str) -> list[VocImage]:
    """What the files hold.

    Raises:
        UserError: with everything that is wrong with any of them.
    """
    images, problems = [], []
    for file in files:
        try:
            images.append(read_voc_file(file))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(all_problems(source, problems))
    return images


def _files_in_split(
    split: Path, annotations: Path, files: Mapping[str, Path]
) -> tuple[dict[str, Path], str]:
    """The annotation files of the images that a list names, and a finding or nothing."""
    lines = read_text(split, "split file (a list of image names)").splitlines()
    listed = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not listed:
        raise UserError(f"{split}: the data set is empty: the split file lists no name")
    chosen: dict[str, Path] = {}
    missing, problems = [], []
    for number, line in listed:
        if fault := path_fault(line):
            problems.append(f"{split}, line {number}: {fault}")
            continue
        name = plain_path(line)
        stem = name if name in files or (annotations / f"{name}.xml").is_file() else _stem(name)
        file = files.get(stem, annotations / f"{stem}.xml")
        if file.is_file():
            chosen[stem] = file
        else:
            missing.append(f"'{line}' (line {number})")
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        problems.append(
            f"{len(missing)} of {len(listed)} names have no XML file in {annotations}: {shown}; a "
            "line holds the name of an image"
        )
    if problems:
        raise UserError(all_problems(str(split), problems))
    repeats = len(listed) - len(chosen)
    lines_repeat = "line repeats" if repeats == 1 else "lines repeat"
    return chosen, f"{repeats} {lines_repeat} a name of the list: read once" if repeats else ""


def _stem(name: str) -> str:
    """The name of an image without its suffix, where it has one."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else name


def _file_names(
    names: Sequence[str], parsed: Sequence[VocImage], folder: Path, problems: list[str]
) -> tuple[list[str], str]:
    """The image file of every annotation file, and a finding or nothing; problems are added.

    An image is the file with the same stem; what the XML says itself counts only where there is
    none, since it is often out of date.
    """
    listings: dict[str, ImageStems] = {}
    files, renamed = [], 0
    for name, image in zip(names, parsed, strict=True):
        parent, _, stem = name.rpartition("/")
        if parent not in listings:
            listings[parent] = ImageStems(folder / parent)
        own = listings[parent].find(stem)
        found = own or listings[parent].find(PurePosixPath(plain_path(image.file_name)).stem)
        renamed += bool(own and image.file_name) and image.file_name != own
        if found is not None:
            files.append(f"{parent}/{found}" if parent else found)
        else:
            named = image.file_name or f"{name}.jpg"
            if fault := path_fault(named):
                problems.append(f"{name}.xml: <filename>: {fault}")
            files.append(named)
    finding = (
        f"{renamed} of {len(names)} annotation files name another image file than the one with "
        "their own name, which is used"
    )
    return files, finding if renamed else ""


def _senseless_finding(names: Sequence[str], parsed: Sequence[VocImage]) -> str:
    found = [
        (name, one) for name, image in zip(names, parsed, strict=True) for one in image.senseless
    ]
    if not found:
        return ""
    values = (
        "value of an optional field makes"
        if len(found) == 1
        else ("values of optional fields make")
    )
    return (
        f"{len(found)} {values} no sense: taken as not given (the first: {found[0][0]}.xml, "
        f"{found[0][1]})"
    )


def _difficult_finding(count: int, difficult_as_crowd: bool) -> str:
    if not count:
        return ""
    meaning = "ignored in training and evaluation" if difficult_as_crowd else "taken as any other"
    return f"{counted(count, 'object')} marked as difficult: {meaning}"
