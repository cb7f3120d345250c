"""The images that are scored, from one or several annotation files, and results on them.

Letters: I images, N detections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from retina.datasets.annotations import AnnotationTable
from retina.datasets.categories import joined_categories
from retina.datasets.coco_results import DetectionArrays, read_results
from retina.datasets.formats import config_of
from retina.datasets.formats.coco import CocoConfig, read_coco_annotations
from retina.datasets.image_lists import listed_images
from retina.datasets.joining import join_tables
from retina.datasets.repair import unfindable_findings
from retina.errors import UserError
from retina.structures import GroundTruth, IntArray, OriginalId
from retina.wording import counted


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """What is scored against.

    Attributes:
        truth: of all images together.
        ids: I, as the files have them.
        file_names: I.
        sources: the annotation files.
        source_of: ``(I,)`` which of them each image is from.
        findings: what reading them found.
    """

    truth: GroundTruth
    ids: tuple[OriginalId, ...]
    file_names: tuple[str, ...]
    sources: tuple[str, ...]
    source_of: IntArray
    findings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def in_order_of_ids(self) -> Self:
        """By the ids of the ground truth, as a `ScoringProblem` numbers the images."""
        return self.take(np.argsort(self.truth.image_ids))

    def by_source(self) -> list[Self]:
        """The images of each annotation file that has any; nothing where there is one file."""
        if len(self.sources) == 1:
            return []
        rows = [np.flatnonzero(self.source_of == number) for number in range(len(self.sources))]
        return [
            replace(self.take(own), sources=(source,), source_of=np.zeros(len(own), np.int64))
            for source, own in zip(self.sources, rows, strict=True)
            if len(own)
        ]

    def paths_in(self, folders: Sequence[Path | None]) -> dict[int, Path]:
        """The file of each image by its id in the ground truth.

        Args:
            folders: of the images of each annotation file; None where it is not known.
        """
        found = {}
        rows = zip(
            self.truth.image_ids.tolist(), self.file_names, self.source_of.tolist(), strict=True
        )
        for image_id, name, source in rows:
            folder = folders[source]
            if folder is not None:
                found[image_id] = folder / name
        return found

    def take(self, rows: IntArray) -> Self:
        """Only some images."""
        return replace(
            self,
            truth=self.truth.take_images(rows),
            ids=tuple(self.ids[row] for row in rows.tolist()),
            file_names=tuple(self.file_names[row] for row in rows.tolist()),
            source_of=self.source_of[rows],
        )

    def listed_in(self, path: Path) -> Self:
        """Only the images that a list names: see `listed_images`."""
        sources = [self.sources[number] for number in self.source_of.tolist()]
        rows = listed_images(path, self.file_names, self.ids, sources)
        taken = self.take(rows)
        finding = list_finding(path, len(rows), len(self))
        return replace(taken, findings=(*self.findings, finding))


def list_finding(path: Path, number: int, of: int) -> str:
    """What is told about an image list."""
    return f"{path}: {number} of {counted(of, 'image')} {'is' if number == 1 else 'are'} scored"


def taken_detections(found: DetectionArrays, truth: GroundTruth) -> DetectionArrays:
    """The detections of the images of a ground truth."""
    keep = np.isin(found.image_ids, truth.image_ids)
    if keep.all():
        return found
    return replace(
        found,
        image_ids=found.image_ids[keep],
        boxes_xywh=found.boxes_xywh[keep],
        scores=found.scores[keep],
        labels=found.labels[keep],
    )


def read_scored(
    annotations: Sequence[Path], results: Sequence[Path], images: Sequence[Path] = ()
) -> tuple[ScoredImages, DetectionArrays]:
    """Annotation files, and what was found in their images.

    Args:
        annotations: of any format.
        results: one file for all, or one for each of them in their order.
        images: the folder of the images, one for all or one for each; formats that give no sizes
            need it.

    Raises:
        UserError: a file cannot be used; the numbers of files do not fit; or one results file
            stands for annotation files that give one id to different images or classes.
    """
    if not annotations:
        raise UserError("--detections needs --annotations: the file with the ground truth")
    if len(results) not in (1, len(annotations)):
        raise UserError(
            f"--detections: {len(results)} results files for "
            f"{counted(len(annotations), 'annotation file')}; give one for all of them, or one for "
            "each in the same order"
        )
    folders = folder_of_each(annotations, images)
    tables = [read_table(path, folder) for path, folder in zip(annotations, folders, strict=True)]
    if len(results) == 1 < len(tables):
        _refuse_coinciding(tables)
    joined = join_tables(tables)
    truth = joined.ground_truth()
    if len(results) == 1:
        found = read_results(results[0], truth, joined)
    else:
        found = read_each(results, tables, truth)
    scored = ScoredImages(
        truth=truth,
        ids=tuple(_original(table, row) for table in tables for row in range(table.num_images)),
        file_names=tuple(joined.file_name(row) for row in range(joined.num_images)),
        sources=tuple(map(str, annotations)),
        source_of=np.repeat(np.arange(len(tables)), [table.num_images for table in tables]),
        findings=(*joined.findings, *unfindable_findings(joined)),
    )
    return scored, found


def folder_of_each(annotations: Sequence[Path | None], images: Sequence[Path]) -> list[Path | None]:
    """The folder of the images of each annotation file.

    Raises:
        UserError: there are more or fewer folders than files, and not one for all.
    """
    if len(images) > 1 and len(images) != len(annotations):
        raise UserError(
            f"--images: {len(images)} folders for "
            f"{counted(len(annotations), 'annotation file')}; give one for all of them, or one for "
            "each in the same order"
        )
    if len(images) == len(annotations):
        return list(images)
    return [images[0] if images else None] * len(annotations)


def read_table(annotations: Path, images: Path | None) -> AnnotationTable:
    """The annotations of a file or folder of any format, as they are scored against.

    Raises:
        UserError: they cannot be used, or the format needs the images and they are not found.
    """
    config = config_of(annotations, images)
    if isinstance(config, CocoConfig):
        return read_coco_annotations(annotations)
    return config.build(check_images=False).table


def read_each(
    results: Sequence[Path], tables: Sequence[AnnotationTable], truth: GroundTruth
) -> DetectionArrays:
    """Each results file by the ids of its own annotation file.

    Args:
        results: one for each of the tables.
        tables: with their own ids.
        truth: of all together, as `join_tables` has them.

    Raises:
        UserError: a results file does not fit its annotations.
    """
    parts = []
    first = 0
    new_labels = joined_categories([table.categories for table in tables])[1]
    for path, table, labels in zip(results, tables, new_labels, strict=True):
        found = read_results(path, table.ground_truth(), table)
        order = np.argsort(table.image_ids, kind="stable")
        rows = order[np.searchsorted(table.image_ids, found.image_ids, sorter=order)]
        image_ids = truth.image_ids[first + rows]
        parts.append(replace(found, image_ids=image_ids, labels=labels[found.labels]))
        first += table.num_images
    return DetectionArrays(
        image_ids=np.concatenate([part.image_ids for part in parts]),
        boxes_xywh=np.concatenate([part.boxes_xywh for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        findings=tuple(
            f"{path}: {finding}"
            for path, part in zip(results, parts, strict=True)
            for finding in part.findings
        ),
    )


def _refuse_coinciding(tables: Sequence[AnnotationTable]) -> None:
    """Raise a `UserError` where an id means one thing in one file and another in the next."""
    twice = [path for path, count in Counter(table.source for table in tables).items() if count > 1]
    if twice:
        raise UserError(f"--annotations: {twice[0]} is named twice; name each file once")
    images: dict[OriginalId, AnnotationTable] = {}
    classes: dict[OriginalId, tuple[str, AnnotationTable]] = {}
    for table in tables:
        for row in range(table.num_images):
            other = images.setdefault(_original(table, row), table)
            if other is not table:
                _refuse_id("image", _original(table, row), other, table)
        for label, name in enumerate(table.categories.names):
            number = table.categories.original_id(label)
            known, other = classes.setdefault(number, (name, table))
            if known != name:
                _refuse_id("category", number, other, table)


def _refuse_id(
    what: str, number: OriginalId, first: AnnotationTable, second: AnnotationTable
) -> None:
    raise UserError(
        f"the {what} id {number!r} is in {first.source} and, for another {what}, in "
        f"{second.source}, so that one results file cannot say which is meant: give a results file "
        "for each, --detections once for every --annotations, in the same order"
    )


def _original(table: AnnotationTable, row: int) -> OriginalId:
    number = int(table.image_ids[row])
    return table.original_image_ids.get(number, number)
