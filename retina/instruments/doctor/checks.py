"""All checks in their order: for ``retina doctor``, and the cheap ones for every training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retina.datasets import DatasetConfig
from retina.datasets.dataset import DetectionDataset
from retina.errors import UserError
from retina.experiment import ExperimentConfig
from retina.experiment.config import SplitsConfig
from retina.instruments.doctor.anchors.check import check_anchors, check_anchors_on_a_sample
from retina.instruments.doctor.box_edges import check_edges
from retina.instruments.doctor.box_format import check_box_format
from retina.instruments.doctor.categories import check_categories, check_class_counts
from retina.instruments.doctor.context import CheckContext, read_context
from retina.instruments.doctor.findings import CheckResult, Finding, worst_first
from retina.instruments.doctor.inputs import check_normalisation, draw_batch
from retina.instruments.doctor.learning_rate import check_learning_rate, probe_learning_rate
from retina.instruments.doctor.overfit import check_overfit
from retina.instruments.doctor.speed_and_memory import check_memory, check_speed
from retina.instruments.doctor.start import check_length, check_start

CheckFunction = Callable[[CheckContext], CheckResult]


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the table of checks.

    Attributes:
        name: for people and for doctor.json.
        run: makes it.
        at_start: its form at the start of every training, which decodes no image, trains nothing
            and draws no random number; None where that is not possible.
        trains: whether it makes real steps; ``--quick`` leaves it out.
        looks_at: ``annotations`` or ``images`` where it is the data alone that it checks, so that
            `data_findings` makes it.
    """

    name: str
    run: CheckFunction
    at_start: CheckFunction | None = None
    trains: bool = False
    looks_at: Literal["annotations", "images"] | None = None


CHECKS = (
    Check("categories", check_categories, at_start=check_categories, looks_at="annotations"),
    Check("class counts", check_class_counts, at_start=check_class_counts, looks_at="annotations"),
    Check("box format", check_box_format, at_start=check_box_format, looks_at="annotations"),
    Check("learning rate", check_learning_rate, at_start=check_learning_rate),
    Check("anchor coverage", check_anchors, at_start=check_anchors_on_a_sample),
    Check("start", check_start, at_start=check_start),
    Check("length", check_length, at_start=check_length),
    Check("normalisation", check_normalisation),
    Check("boxes on edges", check_edges, looks_at="images"),
    Check("augmented batch", draw_batch),
    # First of those that train: on a CPU the peak of the process only ever rises.
    Check("memory", check_memory, trains=True),
    Check("learning rate probe", probe_learning_rate, trains=True),
    Check("overfit one batch", check_overfit, trains=True),
    Check("speed", check_speed, trains=True),
)

_SPLITS = ("train", "validation")

_HOPELESS = {"frozen_random", "no_boxes"}
"""After these nothing can be trained."""


@dataclass(frozen=True, slots=True)
class Report:
    """What all checks say, in their order.

    Attributes:
        results: of all, also of those that were not made.
        stopped_by: why the first of them could not be made, and then none of those that train:
            there are no such weights, no such device, or an image cannot be read.
    """

    results: tuple[CheckResult, ...]
    stopped_by: UserError | None = None

    @property
    def findings(self) -> list[Finding]:
        """All of them, worst first."""
        return worst_first(finding for result in self.results for finding in result.findings)

    @property
    def has_errors(self) -> bool:
        """Whether the training would hardly learn."""
        return any(finding.level == "error" for finding in self.findings)


def run_checks(
    config: ExperimentConfig,
    folder: Path,
    *,
    quick: bool,
    announce: Callable[[str], None] = lambda name: None,
) -> Report:
    """Make all checks.

    Args:
        config: the experiment.
        folder: for ``batch.png``; it exists.
        quick: leave out what trains or measures time.
        announce: called with the name of each check before it is made.
    """
    announce("reading")
    started = time.monotonic()
    context, reading = read_context(config, folder)
    results = [replace(reading, name="reading", seconds=time.monotonic() - started)]
    if context is None:
        return Report(tuple(results))
    codes: set[str] = set()
    stopped_by: UserError | None = None
    for check in CHECKS:
        if check.trains and quick:
            continue
        if check.trains and (codes & _HOPELESS or stopped_by is not None):
            summary = "what was found before stands in its way"
            results.append(CheckResult(summary, name=check.name, is_made=False))
            continue
        announce(check.name)
        started = time.monotonic()
        try:
            result = check.run(context)
        except UserError as error:
            summary = "could not be made: see below" if stopped_by is None else str(error)
            stopped_by = stopped_by or error
            result = CheckResult(summary, is_made=False)
        codes |= {finding.code for finding in result.findings}
        results.append(replace(result, name=check.name, seconds=time.monotonic() - started))
    return Report(tuple(results), stopped_by)


def short_form(
    config: ExperimentConfig, train: DetectionDataset, validation: DetectionDataset | None
) -> list[Finding]:
    """What the cheap checks find at the start of a training, without the notes; worst first."""
    context = CheckContext(config, train, validation)
    made = [check.at_start(context) for check in CHECKS if check.at_start is not None]
    findings = worst_first(finding for result in made for finding in result.findings)
    return [finding for finding in findings if finding.level != "note"]


def data_findings(
    parts: Sequence[DatasetConfig], datasets: Sequence[DetectionDataset], *, look_at_images: bool
) -> list[Finding]:
    """What the checks of the data alone find, worst first.

    Args:
        parts: the configs of the training set, and of a validation set if there is one.
        datasets: the same, read; with the same labels.
        look_at_images: whether every image can be decoded.
    """
    config = ExperimentConfig(
        output_dir=Path(), dataset=SplitsConfig(**dict(zip(_SPLITS, parts, strict=False)))
    )
    train, validation = (*datasets, None)[:2]
    assert train is not None
    context = CheckContext(config, train, validation)
    made = [
        check.run(context)
        for check in CHECKS
        if check.looks_at == "annotations" or (check.looks_at == "images" and look_at_images)
    ]
    return worst_first(finding for result in made for finding in result.findings)
