"""A data set that is named by its folder or file alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from retina.configuration import OneOf
from retina.datasets.categories import UnknownCategories
from retina.datasets.dataset_config import DatasetConfig, RefusalCause, SplitOptions
from retina.datasets.folder import FolderConfig, FolderDataset
from retina.datasets.formats import FORMATS
from retina.datasets.sources import FoundSource, find_source
from retina.structures import Categories


class SourceConfig(SplitOptions):
    """A data set of any format, found in a folder or file: see `find_source`."""

    kind: str = "auto"
    """The format; ``auto`` finds out."""

    source: Path
    """A folder with images and annotations, or an annotation file."""

    images: Path | None = None
    """The folder of the images, where ``source`` is a file and they are not beside it."""

    split: str | None = None
    """Which of several splits; unset: the one that this data set is in the experiment."""

    def find(self) -> FoundSource:
        """What the source is taken for.

        Raises:
            UserError: it does not exist, or is nothing that can be read.
        """
        kind = None if self.kind == "auto" else self.kind
        return find_source(self.source, images=self.images, kind=kind)

    @property
    def found(self) -> FolderConfig:
        """The split, in the format that it is taken for; errors as in `find`."""
        source = self.find()
        part = source.whole or source.split(self.split, key="the key 'split'")[0]
        options = {name: getattr(self, name) for name in SplitOptions.model_fields}
        return part.model_copy(update=options)

    @property
    def display_name(self) -> str:
        """The source, and the split."""
        return str(self.source) if self.split is None else f"{self.source}, {self.split}"

    @property
    def has_category_ids(self) -> bool:
        """Whether its format has."""
        return self.found.has_category_ids

    def annotation_files(self) -> tuple[Path, ...]:
        """Those of the data set that was found."""
        return self.found.annotation_files()

    def build(
        self,
        categories: Categories | None = None,
        *,
        antialias: bool = False,
        check_images: bool = True,
        max_unreadable: int = 0,
        unknown_categories: UnknownCategories = "refuse",
    ) -> FolderDataset:
        """Read the split: see `DatasetConfig.build`. A finding says what was taken for what."""
        dataset = self.found.build(
            categories,
            antialias=antialias,
            check_images=check_images,
            max_unreadable=max_unreadable,
            unknown_categories=unknown_categories,
        )
        if self.kind == "auto":
            tell_source(dataset, self.find())
        return dataset

    def cause_of_refusal(self, split: str) -> RefusalCause | None:
        """The mistake that its format finds."""
        return self.found.cause_of_refusal(split)


def tell_source(dataset: FolderDataset, source: FoundSource) -> None:
    """Make what the source was taken for the first finding of a data set."""
    findings = (source.describe(), *dataset.table.findings)
    dataset.table = replace(dataset.table, findings=findings)


KEYS = {"source": "auto"}
"""A mapping with this key is a `SourceConfig`, whatever its ``kind``."""

AnySingleConfig = Annotated[
    DatasetConfig, OneOf(*FORMATS, SourceConfig, default="coco", by_key=KEYS)
]
"""A single data set in any format."""
