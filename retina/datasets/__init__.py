"""Reading annotated images: formats, repair, augmentation, batches."""

from __future__ import annotations

from typing import Annotated

from retina.configuration import OneOf
from retina.datasets.auto import KEYS, SourceConfig, tell_source
from retina.datasets.combined import ConcatenatedConfig, ConcatenatedDataset
from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.dataset_config import DatasetConfig, RefusalCause
from retina.datasets.folder import FolderConfig, FolderDataset
from retina.datasets.formats import FORMATS, format_of
from retina.datasets.formats.coco import CocoConfig, read_coco_ground_truth
from retina.datasets.formats.csv_table import CsvConfig
from retina.datasets.formats.cvat import CvatConfig
from retina.datasets.formats.labelme import LabelmeConfig
from retina.datasets.formats.via import ViaConfig
from retina.datasets.formats.voc import VocConfig
from retina.datasets.formats.yolo import YoloConfig
from retina.datasets.sources import SPLITS, FoundSource, find_source, split_called

AnyDatasetConfig = Annotated[
    DatasetConfig,
    OneOf(*FORMATS, ConcatenatedConfig, SourceConfig, default="coco", by_key=KEYS),
]
"""A data set of any kind: with a ``source`` what is found there, without a ``kind`` COCO's."""

__all__ = [
    "FORMATS",
    "SPLITS",
    "AnyDatasetConfig",
    "CocoConfig",
    "ConcatenatedConfig",
    "ConcatenatedDataset",
    "CsvConfig",
    "CvatConfig",
    "DatasetConfig",
    "DatasetReport",
    "DetectionDataset",
    "FolderConfig",
    "FolderDataset",
    "FoundSource",
    "LabelmeConfig",
    "RefusalCause",
    "SourceConfig",
    "ViaConfig",
    "VocConfig",
    "YoloConfig",
    "find_source",
    "format_of",
    "read_coco_ground_truth",
    "split_called",
    "tell_source",
]
