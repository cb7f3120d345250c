"""Several data sets in one."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from retina.datasets.auto import AnySingleConfig
from retina.datasets.categories import UnknownCategories
from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.datasets.dataset_config import DatasetConfig, RefusalCause
from retina.datasets.joining import join_federations, join_flags, join_originals, unique_ids
from retina.errors import UserError
from retina.structures import Categories, FloatArray, GroundTruth, IntArray, Targets


class ConcatenatedDataset(DetectionDataset):
    """Several data sets with the same classes, one after the other.

    Image and annotation ids stay as they are where they are unique over all parts; otherwise all
    are numbered anew from 1, and a finding says so.

    Args:
        parts: at least one; the names of their classes agree, in the same order.
        antialias: see `DetectionDataset`.
        max_unreadable: see `DetectionDataset`.

    Raises:
        UserError: the classes do not agree.
    """

    def __init__(
        self,
        parts: Sequence[DetectionDataset],
        *,
        antialias: bool = False,
        max_unreadable: int = 0,
    ) -> None:
        if not parts:
            raise UserError("a concatenated data set needs at least one part")
        self.antialias = antialias
        self.max_unreadable = max_unreadable
        self._parts = tuple(parts)
        self._categories = parts[0].categories
        for number, part in enumerate(parts):
            if part.categories.names != self._categories.names:
                raise UserError(
                    f"part {number} of a concatenated data set has the classes "
                    f"{', '.join(part.categories.names)}, but part 0 has "
                    f"{', '.join(self._categories.names)}: give all parts the same 'classes'"
                )
        self._starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        self._image_ids, self._renumbered = unique_ids([part.image_ids for part in parts])

    @property
    def parts(self) -> tuple[DetectionDataset, ...]:
        """The data sets that it is made of."""
        return self._parts

    @property
    def categories(self) -> Categories:
        """The classes, with the ids of the first part."""
        return self._categories

    @property
    def image_ids(self) -> IntArray:
        """``(I,)`` the original ids, or new ones where they are not unique."""
        return self._image_ids

    @property
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` annotated height and width."""
        return np.concatenate([part.image_sizes for part in self._parts])

    @property
    def report(self) -> DatasetReport:
        """What reading the parts found; each finding begins with the number of its part, from 0."""
        reports = [part.report for part in self._parts]
        return DatasetReport(
            num_images=sum(report.num_images for report in reports),
            num_boxes=sum(report.num_boxes for report in reports),
            num_crowd=sum(report.num_crowd for report in reports),
            num_empty_images=sum(report.num_empty_images for report in reports),
            findings=self._joined([report.findings for report in reports]),
        )

    @property
    def truth_findings(self) -> tuple[str, ...]:
        """Those of the parts; each begins with the number of its part, from 0."""
        return self._joined([part.truth_findings for part in self._parts])

    def _joined(self, findings: Sequence[Sequence[str]]) -> tuple[str, ...]:
        told = [f"part {number}: {one}" for number, own in enumerate(findings) for one in own]
        if self._renumbered:
            told.append("image ids of the parts coincide: all images are numbered anew from 1")
        return tuple(told)

    def class_counts(self) -> tuple[int, ...]:
        """The number of objects of each class, crowd regions not counted."""
        return tuple(map(sum, zip(*(part.class_counts() for part in self._parts), strict=True)))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        number = bisect.bisect_right(self._starts, index) - 1
        return self._parts[number], index - self._starts[number]

    def file_path(self, index: int) -> str:
        """The path of an image file."""
        part, inner = self._locate(index)
        return part.file_path(inner)

    def targets(self, index: int) -> Targets:
        """The repaired objects of an image."""
        part, inner = self._locate(index)
        return part.targets(inner)

    def load(self, index: int) -> AnnotatedImage:
        """Decode an image, with its objects."""
        part, inner = self._locate(index)
        return part.load(inner)

    def ground_truth(self) -> GroundTruth:
        """What the evaluator scores against."""
        truths = [part.ground_truth() for part in self._parts]
        counts = [len(truth.annotation_ids) for truth in truths]
        return GroundTruth(
            categories=self._categories,
            image_ids=self._image_ids,
            image_sizes=self.image_sizes,
            annotation_ids=unique_ids([truth.annotation_ids for truth in truths])[0],
            annotation_image_ids=np.concatenate(
                [
                    self._image_ids[start + truth.image_indices]
                    for truth, start in zip(truths, self._starts, strict=False)
                ]
            ),
            category_labels=np.concatenate([truth.category_labels for truth in truths]),
            boxes_xywh=np.concatenate([truth.boxes_xywh for truth in truths]),
            areas=np.concatenate([truth.areas for truth in truths]),
            is_crowd=np.concatenate([truth.is_crowd for truth in truths]),
            original_image_ids=join_originals(
                [(truth.image_ids, truth.original_image_ids) for truth in truths], self._image_ids
            ),
            is_difficult=join_flags([truth.is_difficult for truth in truths], counts),
            federation=join_federations([truth.federation for truth in truths], self._starts),
        )

    def occluded_fractions(self) -> FloatArray:
        """``(G,)`` for the annotations of the ground truth; NaN where not annotated."""
        return np.concatenate([part.occluded_fractions() for part in self._parts])


class ConcatenatedConfig(DatasetConfig):
    """Several data sets in one."""

    kind: Literal["concatenated"] = "concatenated"
    """Several data sets with the same classes."""

    parts: tuple[AnySingleConfig, ...] = Field(min_length=1)
    """The data sets; the first defines the classes."""

    @property
    def display_name(self) -> str:
        """The names of the parts."""
        return " + ".join(part.display_name for part in self.parts)

    @property
    def has_category_ids(self) -> bool:
        """Whether the first part has, whose ids are taken."""
        return self.parts[0].has_category_ids

    def annotation_files(self) -> tuple[Path, ...]:
        """Those of all parts."""
        return tuple(file for part in self.parts for file in part.annotation_files())

    def build(
        self,
        categories: Categories | None = None,
        *,
        antialias: bool = False,
        check_images: bool = True,
        max_unreadable: int = 0,
        unknown_categories: UnknownCategories = "refuse",
    ) -> ConcatenatedDataset:
        """Read all parts: see `DatasetConfig.build`."""
        parts: list[DetectionDataset] = []
        for part in self.parts:
            takes_the_first = parts and categories is None
            parts.append(
                part.build(
                    parts[0].categories if takes_the_first else categories,
                    antialias=antialias,
                    check_images=check_images,
                    max_unreadable=max_unreadable,
                    unknown_categories=unknown_categories,
                )
            )
        return ConcatenatedDataset(parts, antialias=antialias, max_unreadable=max_unreadable)

    def cause_of_refusal(self, split: str) -> RefusalCause | None:
        """The first mistake that one of the parts finds in its files."""
        causes = (part.cause_of_refusal(split) for part in self.parts)
        return next((cause for cause in causes if cause is not None), None)
