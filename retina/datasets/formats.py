"""The formats of annotations on disk, and how one is told from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from retina.configuration import OneOf
from retina.datasets.coco import CocoConfig
from retina.datasets.folder import FolderConfig
from retina.datasets.voc import VocConfig

FORMATS: tuple[type[FolderConfig], ...] = (
    CocoConfig,
    VocConfig,
)
"""A new format is one more line here."""


AnyFormatConfig = Annotated[FolderConfig, OneOf(*FORMATS, default="coco")]
"""A data set in any of these formats."""


def find_dataset(folder: Path) -> FolderConfig | None:
    """The data set in a folder that is laid out as is usual for one of the formats, else None."""
    found = (config.find_in(folder) for config in FORMATS)
    return next((config for config in found if config is not None), None)


def known_layouts() -> list[str]:
    """What `find_dataset` looks for in a folder, for messages."""
    return [config.layout for config in FORMATS if config.layout]


def format_of(annotations: Path) -> type[FolderConfig]:
    """The format of annotations that exist: the last that recognises them, else COCO's."""
    known = (config for config in reversed(FORMATS) if config.recognises(annotations))
    return next(known, CocoConfig)
