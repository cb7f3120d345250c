"""The formats of annotations on disk, and how one is told from another."""

from __future__ import annotations

from pathlib import Path

from retina.datasets.folder import FolderConfig
from retina.datasets.formats.coco import CocoConfig
from retina.datasets.formats.csv_table import CsvConfig
from retina.datasets.formats.cvat import CvatConfig
from retina.datasets.formats.labelme import LabelmeConfig
from retina.datasets.formats.via import ViaConfig
from retina.datasets.formats.voc import VocConfig
from retina.datasets.formats.yolo import YoloConfig
from retina.errors import UserError, one_of

FORMATS: tuple[type[FolderConfig], ...] = (
    CocoConfig,
    VocConfig,
    YoloConfig,
    CsvConfig,
    LabelmeConfig,
    CvatConfig,
    ViaConfig,
)
"""A new format is one more line here."""


def format_called(kind: str) -> type[FolderConfig]:
    """The format of a ``kind``.

    Raises:
        UserError: there is none of this name.
    """
    by_kind = {config.model_fields["kind"].default: config for config in FORMATS}
    return by_kind[one_of(kind, list(by_kind), "kind")]


def format_of(annotations: Path) -> type[FolderConfig]:
    """The format of annotations that exist: the last that recognises them, else COCO's."""
    known = (config for config in reversed(FORMATS) if config.recognises(annotations))
    return next(known, CocoConfig)


def config_of(annotations: Path, images: Path | None) -> FolderConfig:
    """What reads annotations of any format, also where they are missing and reading will say so.

    Args:
        annotations: a file or folder.
        images: the folder of the images; None where they are by custom. COCO's annotations can be
            read without.

    Raises:
        UserError: the format needs the images and they are not found.
    """
    config = format_of(annotations) if annotations.exists() else CocoConfig
    folder = images or config.images_of(annotations)
    if folder is None and config is not CocoConfig:
        raise UserError(f"{annotations}: say where its images are with --images FOLDER")
    return config(images=folder or annotations.parent, annotations=annotations)
