"""Reading annotated images: formats, repair, augmentation, batches."""

from __future__ import annotations

from typing import Annotated

from retina.configuration import OneOf
from retina.datasets.coco import CocoConfig, read_coco_ground_truth
from retina.datasets.combined import ConcatenatedConfig, ConcatenatedDataset
from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.dataset_config import DatasetConfig, RefusalCause
from retina.datasets.folder import FolderConfig, FolderDataset
from retina.datasets.formats import FORMATS, find_dataset, format_of, known_layouts
from retina.datasets.voc import VocConfig

AnyDatasetConfig = Annotated[DatasetConfig, OneOf(*FORMATS, ConcatenatedConfig, default="coco")]
"""A data set of any kind; without a ``kind`` it is in COCO's format."""

__all__ = [
    "FORMATS",
    "AnyDatasetConfig",
    "CocoConfig",
    "ConcatenatedConfig",
    "ConcatenatedDataset",
    "DatasetConfig",
    "DatasetReport",
    "DetectionDataset",
    "FolderConfig",
    "FolderDataset",
    "RefusalCause",
    "VocConfig",
    "find_dataset",
    "format_of",
    "known_layouts",
    "read_coco_ground_truth",
]
