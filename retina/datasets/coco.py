"""Data sets in COCO's format: a folder of images and one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from retina.datasets.annotations import complete_areas
from retina.datasets.categories import choose_categories
from retina.datasets.coco_file import read_coco_file
from retina.datasets.folder import FolderConfig, FolderDataset, FolderOptions
from retina.structures import Categories, GroundTruth


class CocoDataset(FolderDataset):
    """A split in COCO's format.

    Args:
        images: the folder of the image files.
        annotations: the JSON file.
        options: see `FolderDataset`.

    Raises:
        UserError: the annotations or the images cannot be used; the message says where and why.
    """

    def __init__(
        self, images: Path | str, annotations: Path | str, **options: Unpack[FolderOptions]
    ) -> None:
        super().__init__(read_coco_file(Path(annotations)), images=Path(images), **options)


class CocoConfig(FolderConfig):
    """A data set in COCO's format."""

    kind: Literal["coco"] = "coco"
    """A folder of images and one JSON file; the kind that is meant if none is said."""

    def build(
        self,
        categories: Categories | None = None,
        *,
        antialias: bool = False,
        check_images: bool = True,
        max_unreadable: int = 0,
    ) -> CocoDataset:
        """Read the split.

        Args:
            categories: those of the training set or the detector; None to define them here.
            antialias: see `DetectionDataset`.
            check_images: see `FolderDataset`.
            max_unreadable: see `DetectionDataset`.
        """
        return CocoDataset(
            self.images,
            self.annotations,
            **self.options(
                categories=categories,
                antialias=antialias,
                check_images=check_images,
                max_unreadable=max_unreadable,
            ),
        )


def read_coco_ground_truth(annotations: Path | str) -> GroundTruth:
    """The ground truth of a COCO annotation file, without its images.

    Sizes that the file does not give are ``(0, 0)``; the labels follow the ascending category ids.

    Raises:
        UserError: the file cannot be used; the message says where and why.
    """
    table = read_coco_file(Path(annotations))
    return complete_areas(choose_categories(table, classes=None, unused="keep")).ground_truth()
