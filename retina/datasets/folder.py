"""A data set made of a folder of image files and a table of annotations."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from retina.datasets.annotations import AnnotationTable, complete_areas, in_pixels, random_subset
from retina.datasets.cache import ImageCache
from retina.datasets.categories import (
    UnknownCategories,
    choose_categories,
    match_categories,
)
from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.datasets.dataset_config import SplitOptions
from retina.datasets.file_names import find_files
from retina.datasets.files import check_headers, read_missing_sizes, require_files
from retina.datasets.images import decode_image
from retina.datasets.repair import repair_boxes, unfindable_findings
from retina.structures import Categories, FloatArray, GroundTruth, IntArray, Targets

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""The splits, and what folders and lists of each are called."""


def folders_of_splits(folder: Path) -> list[tuple[str, Path]]:
    """The folders below that are called as splits are, in any case, with the split of each."""
    names = {name for every in SPLIT_NAMES.values() for name in every}
    try:
        with os.scandir(folder) as entries:
            named = [one for one in entries if one.name.lower() in names and one.is_dir()]
    except OSError:
        return []
    by_name = {one.name.lower(): folder / one.name for one in named}
    every = ((split, name) for split, names in SPLIT_NAMES.items() for name in names)
    return [(split, by_name[name]) for split, name in every if name in by_name]


class FolderConfig(SplitOptions):
    """A format: image files in a folder, and annotations that `read` turns into a table.

    A new format is a class that derives from this one in a file of its own, with a field ``kind``
    of a single literal and `read`, and a line in `retina.datasets.formats`.
    """

    images: Path
    """The folder of the image files, relative to the working directory."""

    annotations: Path
    """What describes them: a file (COCO's JSON) or a folder (of Pascal VOC's XML files)."""

    title: ClassVar[str] = ""
    """What people call the format."""

    layout: ClassVar[str] = ""
    """What `find_in` looks for, for messages; empty where it looks for nothing."""

    @abstractmethod
    def read(self) -> AnnotationTable:
        """Everything that the annotation files hold; no image is opened.

        Raises:
            UserError: they cannot be used; the message says where and why.
        """

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether a file or folder that exists holds annotations in this format.

        So a format is found where none is named: see `retina.datasets.formats.format_of`.
        """
        return False

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """The data set in a folder that is laid out as is usual for this format, else None."""
        return None

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """The splits in a folder: its subfolders, or lists that `split_named` finds."""
        whole = cls.find_in(folder)
        if whole is None:
            parts = [(split, cls.find_in(inside)) for split, inside in folders_of_splits(folder)]
        else:
            every = ((split, name) for split, names in SPLIT_NAMES.items() for name in names)
            parts = [(split, whole.split_named(name)) for split, name in every]
        found: dict[str, Self] = {}
        for split, part in parts:
            if part is not None:
                found.setdefault(split, part)
        return found

    @classmethod
    def splits_of(cls, file: Path) -> dict[str, Self]:
        """The splits that an annotation file names by itself, with the folders of their images."""
        return {}

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The folder of the images of annotations, where none is named; None where it is not clear.

        That is ``images/`` beside them.
        """
        beside = annotations.parent / "images"
        return beside if beside.is_dir() else None

    def split_listed_in(self, file: Path) -> Self | None:
        """The images that a file lists; None where the format has no such files."""
        return None

    def split_named(self, name: str) -> Self | None:
        """The split of this name by a list beside the annotations; None where there is none."""
        return None

    @property
    def display_name(self) -> str:
        """The path of the annotations."""
        return str(self.annotations)

    def annotation_files(self) -> tuple[Path, ...]:
        """The file or folder of the annotations."""
        return (self.annotations,)

    def build(
        self,
        categories: Categories | None = None,
        *,
        antialias: bool = False,
        check_images: bool = True,
        max_unreadable: int = 0,
        unknown_categories: UnknownCategories = "refuse",
    ) -> FolderDataset:
        """Read the split: see `DatasetConfig.build`."""
        table = self.read()
        if categories is None:
            table = choose_categories(table, classes=self.classes, unused=self.unused_categories)
        else:
            table = match_categories(
                table, categories, classes=self.classes, unknown=unknown_categories
            )
        table = random_subset(
            table,
            fraction=self.fraction,
            leave_out_fraction=self.leave_out_fraction,
            max_images=self.max_images,
            seed=self.subset_seed,
        )
        table, missing = find_files(table, self.images)
        if check_images:
            require_files(table, missing, self.images, max_missing=max_unreadable)
        may_fail = max_unreadable if check_images else table.num_images
        table = in_pixels(read_missing_sizes(table, self.images, max_unreadable=may_fail))
        if check_images:
            table = check_headers(table, self.images, max_unreadable=max_unreadable)
        return FolderDataset(
            complete_areas(table),
            images=self.images,
            cache_limit_bytes=int(self.cache_limit_gb * 1e9) if self.cache_images else 0,
            max_unreadable=max_unreadable,
            antialias=antialias,
        )


class FolderDataset(DetectionDataset):
    """Image files in a folder, with annotations that are already read.

    Args:
        table: the annotations, with finite boxes, areas and image sizes.
        images: the folder of the image files.
        cache_limit_bytes: memory for decoded images; 0 keeps none.
        max_unreadable: see `DetectionDataset`.
        antialias: see `DetectionDataset`.
    """

    def __init__(
        self,
        table: AnnotationTable,
        *,
        images: Path,
        cache_limit_bytes: int = 0,
        max_unreadable: int = 0,
        antialias: bool = False,
    ) -> None:
        self.antialias = antialias
        self.max_unreadable = max_unreadable
        self.images = images
        self._objects, repairs = repair_boxes(table)
        self._truth_findings = (*table.findings, *unfindable_findings(table))
        self._cache = (
            ImageCache(table.image_sizes, limit_bytes=cache_limit_bytes)
            if cache_limit_bytes
            else None
        )
        self.table = table.with_findings(*repairs, self._cache_finding(table.num_images))

    def _cache_finding(self, num_images: int) -> str:
        if self._cache is None or len(self._cache) == num_images:
            return ""
        return (
            f"the cache has room for {len(self._cache)} of {num_images} decoded images "
            f"({self._cache.num_bytes / 1e9:.2g} GB): raise cache_limit_gb, or give the machine "
            "more shared memory (docker run --shm-size)"
        )

    @property
    def categories(self) -> Categories:
        """Names and original ids of the classes; the labels of the objects index them."""
        return self.table.categories

    @property
    def image_ids(self) -> IntArray:
        """``(I,)`` the original ids, by index."""
        return self.table.image_ids

    @property
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` annotated height and width, by index."""
        return self.table.image_sizes

    @property
    def report(self) -> DatasetReport:
        """What reading the split found."""
        num_crowd = int(self._objects.is_crowd.sum())
        starts = self._objects.starts
        return DatasetReport(
            num_images=len(self),
            num_boxes=len(self._objects.labels) - num_crowd,
            num_crowd=num_crowd,
            num_empty_images=int((starts[1:] == starts[:-1]).sum()),
            findings=self.table.findings,
        )

    @property
    def truth_findings(self) -> tuple[str, ...]:
        """What reading the files found, and the boxes that no detection can find."""
        return self._truth_findings

    def class_counts(self) -> tuple[int, ...]:
        """The number of objects of each class, crowd regions not counted."""
        labels = self._objects.labels[~self._objects.is_crowd]
        return tuple(np.bincount(labels, minlength=len(self.categories)).tolist())

    def __len__(self) -> int:
        return self.table.num_images

    def file_path(self, index: int) -> str:
        """The path of an image file."""
        return str(self.images / self.table.file_name(index))

    def targets(self, index: int) -> Targets:
        """The repaired objects of an image."""
        rows = self._objects.rows(index)
        return Targets(
            boxes=torch.from_numpy(self._objects.boxes[rows].copy()),
            labels=torch.from_numpy(self._objects.labels[rows].copy()),
            is_crowd=torch.from_numpy(self._objects.is_crowd[rows].copy()),
        )

    def load(self, index: int) -> AnnotatedImage:
        """Decode an image, or take it from the cache, with its objects."""
        height, width = self.table.image_sizes[index].tolist()
        path = Path(self.file_path(index))
        if self._cache is None:
            image = decode_image(path, (height, width))
        else:
            image = self._cache.get(index, lambda: decode_image(path, (height, width)))
        rows = self._objects.rows(index)
        return AnnotatedImage(
            image=image,
            boxes=self._objects.boxes[rows].copy(),
            labels=self._objects.labels[rows].copy(),
            is_crowd=self._objects.is_crowd[rows].copy(),
        )

    def ground_truth(self) -> GroundTruth:
        """What the evaluator scores against."""
        return self.table.ground_truth()

    def occluded_fractions(self) -> FloatArray:
        """``(G,)`` for the annotations of the ground truth; NaN where not annotated."""
        return self.table.occluded_fractions
