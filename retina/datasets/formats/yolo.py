"""Data sets in YOLO's format: a text file an image, with a line per object.

Read are what Ultralytics, Roboflow, CVAT, Label Studio and LabelImg write, and Darknet's lists.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from retina.datasets.annotations import AnnotationTable
from retina.datasets.categories import duplicate_name_finding
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.folder import SPLIT_NAMES, FolderConfig
from retina.datasets.formats.table_builder import TableBuilder
from retina.datasets.formats.yolo_file import (
    MOST_CLASSES,
    SplitImages,
    YoloFile,
    common_folder,
    description_in,
    images_listed_in,
    images_of_split,
    is_darknet_data,
    is_image_list,
    is_yolo_yaml,
    names_in,
    read_yolo_file,
)
from retina.datasets.formats.yolo_labels import RowKind, read_row
from retina.datasets.formats.yolo_layout import (
    LabelFiles,
    folders_of_splits,
    holds_labels,
    images_beside,
    labels_of,
)
from retina.errors import UserError
from retina.structures import Categories
from retina.text_files import read_text
from retina.wording import counted

_KINDS: Mapping[RowKind, str] = {
    "outline": "given by an outline (a polygon or a turned box): the box around it is taken",
    "keypoints": "with keypoints: only the box is taken",
    "confidence": "with a sixth number (a confidence): taken as any other",
}


class YoloConfig(FolderConfig):
    """A data set in YOLO's format."""

    kind: Literal["yolo"] = "yolo"
    """A text file for each image; ``annotations`` is the folder of these files, or ``data.yaml``,
    or a list of images."""

    split: str | None = None
    """Which of the splits that ``data.yaml`` names; unset: every image in the folder."""

    title: ClassVar[str] = "YOLO"
    layout: ClassVar[str] = "data.yaml, or images/ with labels/"

    @property
    def has_category_ids(self) -> bool:
        """True: the label files give them."""
        return True

    @property
    def display_name(self) -> str:
        """The path of the annotations, and the split."""
        return str(self.annotations) if self.split is None else f"{self.annotations}, {self.split}"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether they are ``data.yaml``, ``obj.data``, a list of images, or label files."""
        if annotations.is_dir():
            texts = list_files(annotations, (".txt", ".xml")).files
            is_named = annotations.name.lower() == "labels" and not texts
            return is_named or {file.suffix.lower() for file in texts} == {".txt"}
        return any(knows(annotations) for knows in (is_yolo_yaml, is_darknet_data, is_image_list))

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """``labels/`` beside ``images/``, or label files beside the images in one folder."""
        images = folder / "images"
        if images.is_dir() and holds_labels(folder / "labels"):
            return cls(images=images, annotations=folder / "labels")
        mixed = (both for both in (folder, images) if images_beside(both))
        both = next(mixed, None)
        return None if both is None else cls(images=both, annotations=both)

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """Those that ``data.yaml`` names; folders of splits; or lists such as ``train.txt``."""
        described = description_in(folder)
        named = {} if described is None else cls.splits_of(described)
        if named:
            return named
        lists = {
            split: folder / f"{name}.txt"
            for split, names in SPLIT_NAMES.items()
            for name in names
            if is_image_list(folder / f"{name}.txt")
        }
        return cls._split_folders(folder) or {
            split: cls(images=_folder_of_list(file), annotations=file)
            for split, file in lists.items()
        }

    @classmethod
    def _split_folders(cls, folder: Path) -> dict[str, Self]:
        inside = {
            split: cls(images=images, annotations=labels)
            for split, (images, labels) in folders_of_splits(folder).items()
        }
        return inside or super().splits_in(folder)

    @classmethod
    def splits_of(cls, file: Path) -> dict[str, Self]:
        """The splits that ``data.yaml`` or ``obj.data`` names, as far as their images are there."""
        if not (is_yolo_yaml(file) or is_darknet_data(file)):
            return {}
        described = read_yolo_file(file)
        found, missing = {}, {}
        for split in described.splits:
            try:
                folder = images_of_split(described, split).folder
                found[split] = cls(images=folder, annotations=file, split=split)
            except UserError:  # said when it is read
                missing[split] = cls(images=file.parent, annotations=file, split=split)
        if not found:
            return cls._split_folders(file.parent) or missing
        return {
            split: one
            for split, one in {**missing, **found}.items()
            if split in found or split == "train"
        }

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The images of a list, or those in the folder that lies as the labels do."""
        if is_image_list(annotations):
            return _folder_of_list(annotations)
        return super().images_of(annotations)

    def read(self) -> AnnotationTable:
        """The label files of the images.

        The categories are those of ``data.yaml``, or of a list of names such as ``classes.txt``
        near the labels; their ids count from 0. Images without a label file have no objects.
        """
        if not self.images.is_dir():
            raise UserError(
                f"{self.images}: no such image folder (of the annotations {self.annotations})"
            )
        described = self._described()
        images = self._images(described)
        builder = TableBuilder(self.display_name, in_fractions=True)
        reading = _Reading(builder, described)
        labels = LabelFiles(self.images, self.annotations if self.annotations.is_dir() else None)
        for image in images.files:
            name = image.relative_to(self.images).as_posix()
            reading.add(builder.image(name, where=str(image)), labels.of(image))
        may_lack_all = self.split == "test" or labels.any_folder
        if reading.num_files == 0 and not may_lack_all:
            raise UserError(
                f"{self.display_name}: none of {len(images.files)} images has a label file: "
                f"looked for {labels_of(images.files[0])} and its like; put the labels there"
            )
        builder.findings += [
            *images.findings,
            *labels.findings(len(images.files)),
            *reading.findings,
        ]
        return reading.build()

    def _described(self) -> YoloFile | None:
        """What says the names of the classes."""
        if is_yolo_yaml(self.annotations) or not (
            self.annotations.is_dir() or is_image_list(self.annotations)
        ):
            return read_yolo_file(self.annotations)
        whole = Path(os.path.abspath(self.annotations))  # noqa: PTH100  # without "..", links as named
        folders = [whole, *whole.parents[:2]]
        split_names = {name for names in SPLIT_NAMES.values() for name in names}
        if not {folder.name.lower() for folder in folders[:2]} & split_names:
            del folders[2:]  # that above the data set
        near = (names_in(folder) for folder in (*folders, self.images) if folder.is_dir())
        return next((found for found in near if found is not None), None)

    def _images(self, described: YoloFile | None) -> SplitImages:
        if self.split is not None and described is not None:
            chosen = images_of_split(described, self.split)
        elif is_image_list(self.annotations):
            chosen = SplitImages(tuple(images_listed_in(self.annotations)), self.images)
        else:
            chosen = SplitImages(list_files(self.images, IMAGE_SUFFIXES).files, self.images)
        outside = [image for image in chosen.files if not image.is_relative_to(self.images)]
        if outside:
            raise UserError(
                f"{self.display_name}: {outside[0]} does not lie in the image folder {self.images}"
            )
        return chosen


def _folder_of_list(file: Path) -> Path:
    return common_folder([image.parent for image in images_listed_in(file)])


class _Reading:
    """Adds label files to a table, image by image.

    Attributes:
        num_files: how many were read.
    """

    def __init__(self, builder: TableBuilder, described: YoloFile | None) -> None:
        self.num_files = 0
        self._builder = builder
        self._described = described
        self._has_keypoints = described is not None and described.has_keypoints
        self._kinds: Counter[RowKind] = Counter()
        self._highest = 0

    def add(self, image: int, file: Path | None) -> None:
        """The objects of an image; it has none where there is no file."""
        if file is None:
            return
        self.num_files += 1
        try:
            lines = read_text(file, "label file").splitlines()
        except UserError as error:
            self._builder.problems.append(str(error))
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add_line(image, line, f"{file}, line {number}")

    def _add_line(self, image: int, line: str, where: str) -> None:
        try:
            row = read_row(line, has_keypoints=self._has_keypoints)
            self._check_class(row.class_id)
        except ValueError as error:
            self._builder.problems.append(f"{where}: {error}")
            return
        self._kinds[row.kind] += 1
        self._highest = max(self._highest, row.class_id)
        self._builder.box(image, str(row.class_id), row.corners, where=where)

    def _check_class(self, class_id: int) -> None:
        names = None if self._described is None else self._described.names
        if names is None and class_id > MOST_CLASSES:
            raise ValueError(f"the class id {class_id} is out of range")
        if names is not None and class_id not in names:
            assert self._described is not None
            ids = ", ".join(map(str, names)) if len(names) < 4 else f"{min(names)} to {max(names)}"
            raise ValueError(
                f"the class id {class_id} is out of range: {self._described.path.name} names "
                f"{counted(len(names), 'class')} ({ids})"
            )

    @property
    def findings(self) -> Sequence[str]:
        """What was odd in the rows, and in the file that describes them."""
        found = list(self._described.findings) if self._described is not None else []
        if self._described is None or self._described.names is None:
            found.append(
                "nothing names the classes (data.yaml, classes.txt or obj.names): they are called "
                "'class 0', 'class 1' …"
            )
        for kind, what in _KINDS.items():
            if count := self._kinds[kind]:
                found.append(counted(count, "object", what))
        return found

    def build(self) -> AnnotationTable:
        """The table, with the names of the classes."""
        names = None if self._described is None else self._described.names
        if names is None:
            names = {at: f"class {at}" for at in range(self._highest + 1)}
        table = self._builder.build([str(class_id) for class_id in names])
        listed = Categories(tuple(names.values()), tuple(names))
        return replace(table, categories=listed).with_findings(duplicate_name_finding(listed))
