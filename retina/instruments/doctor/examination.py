"""All checks in their order, and the cheap ones among them for the start of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retina.datasets.dataset import DetectionDataset
from retina.experiment import ExperimentConfig
from retina.instruments.doctor.anchor_fit import check_anchors, examine_anchors
from retina.instruments.doctor.box_format import check_box_format
from retina.instruments.doctor.categories import check_categories, check_class_counts
from retina.instruments.doctor.edges import check_edges
from retina.instruments.doctor.findings import Examined, Finding, by_severity
from retina.instruments.doctor.inputs import check_normalisation, check_start
from retina.instruments.doctor.learning_rate import check_learning_rate
from retina.instruments.doctor.picture import draw_batch
from retina.instruments.doctor.probing import examine_overfit, probe_learning_rate
from retina.instruments.doctor.speed import examine_memory, examine_speed
from retina.instruments.doctor.subject import Subject, read_subject

Check = Callable[[Subject], Examined]

CHEAP_CHECKS: tuple[tuple[str, Check], ...] = (
    ("categories", check_categories),
    ("class counts", check_class_counts),
    ("box format", check_box_format),
    ("learning rate", check_learning_rate),
    ("anchor coverage", check_anchors),
)
"""What every training starts with: no image is decoded, nothing is trained, no random number is
drawn."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check that was made.

    Attributes:
        name: of the check.
        seconds: that it took.
        examined: what it says; None where it could not be made, because of what others found.
    """

    name: str
    seconds: float
    examined: Examined | None


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was found.

    Attributes:
        results: in the order of the checks.
        findings: all of them, worst first.
    """

    results: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]

    @property
    def is_severe(self) -> bool:
        """Whether the training would hardly learn."""
        return any(finding.severity == "severe" for finding in self.findings)


def examine(
    config: ExperimentConfig,
    folder: Path,
    *,
    quick: bool,
    announce: Callable[[str], None] = lambda name: None,
) -> Examination:
    """Make all checks.

    Args:
        config: the experiment.
        folder: for the pictures; it exists.
        quick: leave out what trains or measures time: the probe of the learning rate, one batch
            learned by heart, speed and memory.
        announce: called with the name of each check before it is made.

    Raises:
        UserError: the config names a device or weights that are not there.
    """
    started = time.monotonic()
    announce("reading")
    reading = read_subject(config)
    images = 0 if reading.subject is None else len(reading.subject.train)
    summary = "not readable" if reading.subject is None else f"{images} training images"
    first = Examined(summary, reading.findings, {"images": images})
    results = [CheckResult("reading", time.monotonic() - started, first)]
    if reading.subject is not None:
        results += _make(reading.subject, _checks(folder, quick=quick), announce)
    made = [result.examined for result in results if result.examined is not None]
    found = [finding for examined in made for finding in examined.findings]
    return Examination(tuple(results), tuple(by_severity(found)))


def short_form(
    config: ExperimentConfig, train: DetectionDataset, validation: DetectionDataset | None
) -> list[Finding]:
    """What the cheap checks find at the start of a training, without the notes; worst first."""
    subject = Subject(config, train, validation)
    findings = [finding for _, check in CHEAP_CHECKS for finding in check(subject).findings]
    return [finding for finding in by_severity(findings) if finding.severity != "note"]


def _checks(folder: Path, *, quick: bool) -> Sequence[tuple[str, Check]]:
    cheap = [(name, check) for name, check in CHEAP_CHECKS if check is not check_anchors]
    looking: list[tuple[str, Check]] = [
        *cheap,
        ("anchor coverage", examine_anchors),
        ("start", check_start),
        ("normalisation", check_normalisation),
        ("boxes on edges", check_edges),
        ("augmented batch", partial(draw_batch, folder=folder)),
    ]
    if quick:
        return looking
    return [
        *looking,
        ("memory", examine_memory),  # first: on a CPU the peak of the process only ever rises
        ("learning rate probe", probe_learning_rate),
        ("one batch by heart", examine_overfit),
        ("speed", examine_speed),
    ]


_NEEDS_TRAINING = ("learning rate probe", "one batch by heart", "speed", "memory")
_HOPELESS = {"frozen_random", "no_boxes"}
"""After these nothing can be trained."""


def _make(
    subject: Subject, checks: Sequence[tuple[str, Check]], announce: Callable[[str], None]
) -> Iterator[CheckResult]:
    codes: set[str] = set()
    for name, check in checks:
        if name in _NEEDS_TRAINING and codes & _HOPELESS:
            yield CheckResult(name, 0.0, None)
            continue
        announce(name)
        started = time.monotonic()
        examined = check(subject)
        codes |= {finding.code for finding in examined.findings}
        yield CheckResult(name, time.monotonic() - started, examined)
