"""The formats that a data set can be written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from retina.datasets.exports.coco import write_coco_folder
from retina.datasets.exports.csv import write_csv
from retina.datasets.exports.exported_images import OnImage, Splits
from retina.datasets.exports.voc import write_voc
from retina.datasets.exports.yolo import write_yolo

Writer = Callable[[Splits, Path, OnImage], tuple[str, ...]]
"""Writes splits into a folder, and gives what the format cannot hold, one sentence each."""

WRITERS: Mapping[str, Writer] = {
    "coco": write_coco_folder,
    "yolo": write_yolo,
    "voc": write_voc,
    "csv": write_csv,
}
"""By the name of the format; a new one is one more entry."""
