"""The formats of annotations on disk, and how one is told from another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag

from retina.datasets.coco import CocoConfig
from retina.datasets.dataset_config import DatasetConfig
from retina.datasets.folder import FolderConfig
from retina.datasets.voc import VocConfig

FORMATS: tuple[type[FolderConfig], ...] = (
    CocoConfig,
    VocConfig,
)
"""A new format is one more line here. The first is meant where no ``kind`` is given."""


def one_of(*configs: type[DatasetConfig]) -> Any:
    """The type of a field that takes any of these, by its ``kind``; by default COCO's."""
    tagged = [Annotated[config, Tag(config.model_fields["kind"].default)] for config in configs]
    return Annotated[Union[tuple(tagged)], Discriminator(_kind_of)]  # noqa: UP007


def _kind_of(value: Any) -> str:
    default = FORMATS[0].model_fields["kind"].default
    if isinstance(value, dict):
        return str(value.get("kind", default))
    return str(getattr(value, "kind", default))


if TYPE_CHECKING:  # a type checker sees only what stands in the base class
    AnyFormatConfig = FolderConfig
else:
    AnyFormatConfig = one_of(*FORMATS)


def find_dataset(folder: Path) -> FolderConfig | None:
    """The data set in a folder that is laid out as is usual for one of the formats, else None."""
    found = (config.find_in(folder) for config in FORMATS)
    return next((config for config in found if config is not None), None)


def format_of(annotations: Path) -> type[FolderConfig]:
    """The format of annotations that exist: the last of `FORMATS` that recognises them.

    The first of all stands for what none recognises.
    """
    known = (config for config in reversed(FORMATS) if config.recognises(annotations))
    return next(known, FORMATS[0])
