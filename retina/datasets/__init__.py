"""Reading annotated images: formats, repair, augmentation, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retina.datasets.coco import CocoConfig, read_coco_ground_truth
from retina.datasets.combined import ConcatenatedConfig, ConcatenatedDataset
from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.dataset_config import DatasetConfig, RefusalCause
from retina.datasets.folder import FolderConfig, FolderDataset
from retina.datasets.formats import FORMATS, find_dataset, format_of, one_of
from retina.datasets.voc import VocConfig

if TYPE_CHECKING:
    AnyDatasetConfig = DatasetConfig
else:
    AnyDatasetConfig = one_of(*FORMATS, ConcatenatedConfig)

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
    "read_coco_ground_truth",
]
