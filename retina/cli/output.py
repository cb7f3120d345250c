"""What several commands print."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retina.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from retina.datasets.dataset import DatasetReport, DetectionDataset


def make_console() -> Console:
    """The terminal, or the file that it is led to; of several processes only the first one's."""
    from rich.console import Console

    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    is_silent = launched and os.environ["RANK"] != "0"
    return Console(highlight=False, emoji=False, quiet=is_silent)  # a class may be called ":dog:"


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are, however long."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that goes away when the work is done; gives what to call with each number done."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)


def describe_report(name: str, report: DatasetReport) -> list[str]:
    """A line for the counts of a split, and one for each finding."""
    counts = (
        counted(report.num_images, "image"),
        counted(report.num_boxes, "box"),
        counted(report.num_crowd, "crowd region"),
        counted(report.num_empty_images, "image", "without objects"),
    )
    first = f"{name}: {', '.join(counts)}"
    return [first, *(f"  {finding}" for finding in report.findings)]


def describe_truth(name: str, dataset: DetectionDataset) -> list[str]:
    """A line for what is scored against, which is not repaired, and one for each finding."""
    annotations = counted(len(dataset.ground_truth().areas), "annotation")
    first = f"{name}: {counted(len(dataset), 'image')}, {annotations}"
    return [first, *(f"  {finding}" for finding in dataset.truth_findings)]
