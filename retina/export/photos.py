"""A folder of images without annotations, to calibrate and verify an export on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.images import decode_image, read_header
from retina.datasets.sources import NoDataSetError, find_source
from retina.structures import Categories, GroundTruth, IntArray, Targets


class PhotoDataset(DetectionDataset):
    """Images of which nobody has said what is in them; their ids count from 1.

    Args:
        files: of the images.
        categories: of the detector.
    """

    def __init__(self, files: Sequence[Path], categories: Categories) -> None:
        self._files, self._categories = files, categories

    @property
    def categories(self) -> Categories:
        """Those of the detector."""
        return self._categories

    @property
    def image_ids(self) -> IntArray:
        """``(I,)``."""
        return np.arange(1, len(self) + 1)

    @cached_property
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` height and width by the heads of the files.

        Raises:
            UnreadableImageError: a file cannot be read; the message names it.
        """
        sizes = [read_header(path).oriented_size for path in self._files]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    @property
    def report(self) -> DatasetReport:
        """There is nothing to find."""
        return DatasetReport(len(self), 0, 0, len(self))

    def __len__(self) -> int:
        return len(self._files)

    def file_path(self, index: int) -> str:
        """The path of an image file."""
        return str(self._files[index])

    def targets(self, index: int) -> Targets:
        """None."""
        return Targets.empty()

    def class_counts(self) -> tuple[int, ...]:
        """0 of each class."""
        return (0,) * len(self._categories)

    def load(self, index: int) -> AnnotatedImage:
        """Decode an image."""
        return AnnotatedImage(
            image=decode_image(self._files[index]),
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            is_crowd=np.zeros(0, np.bool_),
        )

    def ground_truth(self) -> GroundTruth:
        """Without annotations nothing is scored."""
        none = np.zeros(0, np.int64)
        return GroundTruth(
            categories=self._categories,
            image_ids=self.image_ids,
            image_sizes=self.image_sizes,
            annotation_ids=none,
            annotation_image_ids=none,
            category_labels=none,
            boxes_xywh=np.zeros((0, 4)),
            areas=np.zeros(0),
            is_crowd=np.zeros(0, np.bool_),
        )


_ANNOTATIONS = {".json", ".xml", ".csv"}


def photos_in(folder: Path) -> list[Path]:
    """The images of a folder without any annotations, in depth; none of another, or of a file.

    Raises:
        UserError: it holds what may be annotations, but cannot be read as such, or several data
            sets; or a folder may not be listed.
    """
    if not folder.is_dir():
        return []
    try:
        find_source(folder)
    except NoDataSetError:
        if list_files(folder, _ANNOTATIONS).files:
            raise
        return list(list_files(folder, IMAGE_SUFFIXES).files)
    return []
