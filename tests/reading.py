"""Data sets read with any options, those of the config and those of its ``build`` together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retina.datasets import CocoConfig, FolderConfig, FolderDataset, VocConfig

_OF_BUILD = {"categories", "antialias", "check_images", "max_unreadable", "unknown_categories"}


def read_coco(images: Path | str, annotations: Path | str, **options: Any) -> FolderDataset:
    """A split in COCO's format."""
    return _read(CocoConfig, images, annotations, options)


def read_voc(images: Path | str, annotations: Path | str, **options: Any) -> FolderDataset:
    """A split in Pascal VOC's format."""
    return _read(VocConfig, images, annotations, options)


def _read(
    config: type[FolderConfig], images: Path | str, annotations: Path | str, options: dict[str, Any]
) -> FolderDataset:
    of_build = {key: value for key, value in options.items() if key in _OF_BUILD}
    of_config = {key: value for key, value in options.items() if key not in _OF_BUILD}
    return config(images=Path(images), annotations=Path(annotations), **of_config).build(**of_build)
