"""Reading annotated images: formats, repair, augmentation, batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from retina.datasets.coco import CocoConfig, CocoDataset, read_coco_ground_truth
from retina.datasets.combined import ConcatenatedConfig, ConcatenatedDataset, kind_of
from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.voc import VocConfig, VocDataset

DatasetConfig = Annotated[
    Annotated[CocoConfig, Tag("coco")]
    | Annotated[VocConfig, Tag("voc")]
    | Annotated[ConcatenatedConfig, Tag("concatenated")],
    Discriminator(kind_of),
]
"""A data set of any kind; without a ``kind`` it is in COCO's format."""

__all__ = [
    "CocoConfig",
    "CocoDataset",
    "ConcatenatedConfig",
    "ConcatenatedDataset",
    "DatasetConfig",
    "DatasetReport",
    "DetectionDataset",
    "VocConfig",
    "VocDataset",
    "read_coco_ground_truth",
]
