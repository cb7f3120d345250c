"""What the config of every data set is to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from retina.configuration import Config
from retina.datasets.categories import UnknownCategories, UnusedCategories
from retina.datasets.dataset import DetectionDataset
from retina.structures import Categories


@dataclass(frozen=True, slots=True)
class RefusalCause:
    """A mistake in the files that explains why they were refused.

    Attributes:
        code: its name, for programs.
        what: one sentence with the numbers that prove it.
        why: why it matters.
        fix: what to do.
        numbers: the proof, for programs.
    """

    code: str
    what: str
    why: str
    fix: str
    numbers: dict[str, int] = field(default_factory=dict)


class DatasetConfig(Config, ABC):
    """A data set of any kind. Nothing else is read of one outside of its own file."""

    @property
    @abstractmethod
    def display_name(self) -> str:
        """What messages call it."""

    @property
    def has_category_ids(self) -> bool:
        """Whether the files give each category a number; else the numbers only count the names."""
        return False

    def annotation_files(self) -> tuple[Path, ...]:
        """The files or folders that the annotations are read from, which nothing may overwrite."""
        return ()

    @abstractmethod
    def build(
        self,
        categories: Categories | None = None,
        *,
        antialias: bool = False,
        check_images: bool = True,
        max_unreadable: int = 0,
        unknown_categories: UnknownCategories = "refuse",
    ) -> DetectionDataset:
        """Read the split.

        Args:
            categories: those of the training set or the detector, which the labels then follow;
                None to define them here.
            antialias: see `DetectionDataset`.
            check_images: check first that every image is there and (for up to `files.MAX_HEADERS`
                of them) has its annotated size.
            max_unreadable: see `DetectionDataset`; so many may fail that check, too.
            unknown_categories: what becomes of annotations of a category that is not among
                ``categories``: an error, or they are left out and counted in a finding. Scoring a
                detector of some of the classes on a full file leaves them out.

        Raises:
            UserError: the annotations or the images cannot be used; the message says where and why.
        """

    def cause_of_refusal(self, split: str) -> RefusalCause | None:
        """The mistake behind a refusal by `build`, where the format knows how to find one.

        Args:
            split: the name of the split, for the sentences.
        """
        return None


class SplitOptions(DatasetConfig):
    """What can be said of any data set, whatever its format."""

    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the categories to learn, in the order of the labels; annotations of others are left
    out. Unset: all of them."""

    unused_categories: UnusedCategories = "keep"
    """Whether categories that no annotation of the training set uses are kept as classes or
    dropped; does not matter where `classes` is given. Decided on the whole split, before a part of
    its images is chosen."""

    fraction: float | None = Field(default=None, gt=0, le=1)
    """Use only this part of the images, chosen at random."""

    leave_out_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Leave out the images that a `fraction` of this size chooses with the same seed: so two splits
    are made of one that share no image. `fraction` and `max_images` choose among the others."""

    max_images: int | None = Field(default=None, ge=1)
    """Use at most so many images, chosen at random."""

    subset_seed: int = Field(default=0, ge=0)
    """Seed of the choice that `fraction`, `leave_out_fraction` and `max_images` make;
    smaller parts lie within larger."""

    cache_images: bool = False
    """Keep decoded images in memory, shared by the workers of a process."""

    cache_limit_gb: float = Field(default=8.0, gt=0)
    """The most memory that the cache takes, in gigabytes (10⁹ bytes)."""
