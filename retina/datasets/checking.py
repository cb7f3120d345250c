"""Opening every image of a data set to see whether it can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.files import orientation_findings
from retina.datasets.images import orientation_to_apply, read_header
from retina.errors import UserError

FEW_BOXES = 10
"""Classes with fewer boxes are named: they can hardly be learnt, or are mislabelled."""


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What checking a data set found.

    Attributes:
        report: what reading the annotations found.
        findings: what decoding the images and counting the boxes found beyond that.
        broken_images: by index, what is wrong with each image that cannot be used, naming its file.
    """

    report: DatasetReport
    findings: tuple[str, ...]
    broken_images: Mapping[int, str]


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
    broken: dict[int, str] = {}
    turned: list[bool] = []
    for index, (message, turn) in enumerate(_outcomes(dataset, num_threads)):
        if message is not None:
            broken[index] = message
        if turn is not None:
            turned.append(turn)
        if on_progress is not None:
            on_progress(1)
    return DatasetCheck(
        report=dataset.report,
        findings=(*orientation_findings(turned, len(dataset)), *_rare_classes(dataset)),
        broken_images=broken,
    )


def _outcomes(
    dataset: DetectionDataset, num_threads: int
) -> Iterator[tuple[str | None, bool | None]]:
    """What is wrong with each image, and whether its EXIF orientation is applied, in order."""
    indices = iter(range(len(dataset)))
    with ThreadPoolExecutor(num_threads) as pool:
        # In slices, so that an interrupt does not wait for the whole set.
        while chunk := list(islice(indices, 8 * num_threads)):
            yield from pool.map(lambda index: _outcome(dataset, index), chunk)


def _outcome(dataset: DetectionDataset, index: int) -> tuple[str | None, bool | None]:
    try:
        size = dataset.load(index).size
        path = Path(dataset.file_path(index))
        header = read_header(path)
        turn = None if header.orientation == 1 else orientation_to_apply(header, size, path) != 1
    except UserError as error:
        return str(error), None
    return None, turn


def _rare_classes(dataset: DetectionDataset) -> Iterator[str]:
    rare = [
        f"{name} ({count})"
        for name, count in zip(dataset.categories.names, dataset.class_counts(), strict=True)
        if 0 < count < FEW_BOXES
    ]
    if rare:
        who = "class has" if len(rare) == 1 else "classes have"
        yield f"{len(rare)} {who} fewer than {FEW_BOXES} boxes: {', '.join(rare)}"
