"""Opening every image of a data set to see whether it can be trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.duplicates import Fingerprint
from retina.datasets.files import orientation_findings
from retina.datasets.folder import FolderDataset
from retina.datasets.images import orientation_to_apply, read_header
from retina.datasets.repair import repair_findings
from retina.datasets.repeated import plain_path
from retina.errors import UserError

FEW_BOXES = 10
"""Classes with fewer boxes are named: they can hardly be learnt, or are mislabelled."""


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Something that was found, and where it can be seen.

    Attributes:
        text: one sentence.
        images: indices of the images that it is about, or that its sentence names.
        annotations: positions of its annotations in the ground truth.
    """

    text: str
    images: tuple[int, ...] = ()
    annotations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What checking a data set found.

    Attributes:
        report: what reading the annotations found.
        findings: all of the report, and what decoding the images and counting the boxes found
            beyond that.
        broken_images: by index, what is wrong with each image that cannot be used, naming its file.
        fingerprints: of every image, for `near_duplicates`; None of one that has none.
    """

    report: DatasetReport
    findings: tuple[CheckFinding, ...]
    broken_images: Mapping[int, str]
    fingerprints: Sequence[Fingerprint | None]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one image.

    Attributes:
        fault: why it cannot be used, or nothing.
        is_turned: whether its EXIF orientation is applied; None if it asks for nothing.
        fingerprint: what it is compared by.
    """

    fault: str = ""
    is_turned: bool | None = None
    fingerprint: Fingerprint | None = None


def check_dataset(
    dataset: DetectionDataset,
    *,
    num_threads: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> DatasetCheck:
    """Decode every image.

    Args:
        dataset: built with ``check_images=False``, so that broken images are listed here instead of
            the first one ending it all.
        num_threads: images decoded at a time.
        on_progress: called with 1 after every image.
    """
    outcomes: list[_Outcome] = []
    for outcome in _outcomes(dataset, num_threads):
        outcomes.append(outcome)
        if on_progress is not None:
            on_progress(1)
    return DatasetCheck(
        report=dataset.report,
        findings=(
            *_findings_of_report(dataset),
            *_orientations(outcomes),
            *_rare_classes(dataset),
        ),
        broken_images={index: one.fault for index, one in enumerate(outcomes) if one.fault},
        fingerprints=[one.fingerprint for one in outcomes],
    )


def _outcomes(dataset: DetectionDataset, num_threads: int) -> Iterator[_Outcome]:
    indices = iter(range(len(dataset)))
    with ThreadPoolExecutor(num_threads) as pool:
        # In slices, so that an interrupt does not wait for the whole set.
        while chunk := list(islice(indices, 8 * num_threads)):
            yield from pool.map(lambda index: _outcome(dataset, index), chunk)


def _outcome(dataset: DetectionDataset, index: int) -> _Outcome:
    try:
        annotated = dataset.load(index)
        path = Path(dataset.file_path(index))
        header = read_header(path)
        orientation = orientation_to_apply(header, annotated.size, path)
    except UserError as error:
        return _Outcome(fault=str(error))
    is_turned = None if header.orientation == 1 else orientation != 1
    return _Outcome(is_turned=is_turned, fingerprint=Fingerprint.of(annotated.image))


def _findings_of_report(dataset: DetectionDataset) -> Iterator[CheckFinding]:
    """Those of the reader, with the boxes that it repaired, or the images that it names."""
    of_boxes = {}
    if isinstance(dataset, FolderDataset):
        of_boxes = dict(repair_findings(dataset.table))
    for text in dataset.report.findings:
        rows = np.flatnonzero(of_boxes[text]).tolist() if text in of_boxes else ()
        images = () if rows else _images_named(text, dataset)
        yield CheckFinding(text, tuple(images), tuple(rows))


def _images_named(text: str, dataset: DetectionDataset) -> tuple[int, ...]:
    names = tuple(f"/{plain_path(name)}" for name in re.findall(r"'([^']+)'", text))
    if not names:
        return ()
    paths = (plain_path(dataset.file_path(index)) for index in range(len(dataset)))
    return tuple(index for index, path in enumerate(paths) if f"/{path}".endswith(names))


def _orientations(outcomes: Sequence[_Outcome]) -> Iterator[CheckFinding]:
    for wanted in (True, False):
        images = [index for index, one in enumerate(outcomes) if one.is_turned is wanted]
        for text in orientation_findings([wanted] * len(images), len(outcomes)):
            yield CheckFinding(text, tuple(images))


def _rare_classes(dataset: DetectionDataset) -> Iterator[CheckFinding]:
    counts = dataset.class_counts()
    rare = [label for label, count in enumerate(counts) if 0 < count < FEW_BOXES]
    if rare:
        names = [f"{dataset.categories.names[label]} ({counts[label]})" for label in rare]
        who = "class has" if len(rare) == 1 else "classes have"
        rows = np.flatnonzero(np.isin(dataset.ground_truth().category_labels, rare)).tolist()
        text = f"{len(rare)} {who} fewer than {FEW_BOXES} boxes: {', '.join(names)}"
        yield CheckFinding(text, annotations=tuple(rows))
