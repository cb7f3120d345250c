"""Whether the anchors reach the objects at the size that the network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from retina.configuration import Tree
from retina.instruments.doctor.coverage import (
    AnchorCoverage,
    InputImage,
    input_images,
    measure_coverage,
)
from retina.instruments.doctor.coverage.fitting import (
    AnchorProposal,
    best_proposal,
    propose_anchors,
)
from retina.instruments.doctor.coverage.measuring import within_budget
from retina.instruments.doctor.findings import Examined, Finding
from retina.instruments.doctor.subject import Subject

_MOST_IMAGES = 200
_SHORT_BUDGET = 2 * 10**7
_FULL_BUDGET = 2 * 10**8
"""Overlaps of anchors and objects that are computed; 10⁷ take about 0.2 s on one core."""

_NEVER = (0.03, 0.10)
_UNMATCHED = (0.20, 0.40)
"""Shares of the objects without any anchor, and without a good one: a warning, and severe. The
published anchors leave 15 % of COCO's objects without a good one."""

_FEW_OBJECTS = 20
_ENOUGH = 0.9
"""A remedy that lets the assigner match this share of the objects is enough."""


def check_anchors(subject: Subject) -> Examined:
    """Coverage by the assigner on a sample; the remedy is left to ``retina data anchors``."""
    images = sampled(subject, _SHORT_BUDGET)
    coverage = measured(subject, images)
    findings = _unreached(subject, coverage, remedy="", patch=None)
    return _examined(subject, coverage, findings)


def examine_anchors(subject: Subject) -> Examined:
    """The same on more images, and where objects are missed, a search for what reaches them."""
    images = sampled(subject, _FULL_BUDGET)
    coverage = measured(subject, images)
    if _severity(coverage) is None:
        return _examined(subject, coverage, _missed_class(subject, coverage))
    remedy, patch = _remedy(subject, images)
    findings = _unreached(subject, coverage, remedy=remedy, patch=patch)
    return _examined(subject, coverage, findings)


def sampled(subject: Subject, budget: int) -> list[InputImage]:
    """Images at the input's sizes, as many as the budget allows."""
    size = subject.config.preprocess
    sizes, stretch = subject.input_sizes, size.stretch
    images = input_images(subject.train, sizes=sizes, stretch=stretch, limit=_MOST_IMAGES)
    count = within_budget(images, subject.strides, budget)
    return [images[number * len(images) // count] for number in range(count)] if images else []


def measured(subject: Subject, images: Sequence[InputImage]) -> AnchorCoverage:
    """The coverage by the configured anchors and assigner."""
    config = subject.config
    return measure_coverage(
        images,
        anchors=config.model.anchors.build(subject.strides),
        assigner=config.objective.assigner.build(),
        size_divisor=config.preprocess.size_divisor,
        pad_to=config.preprocess.pad_to,
    )


def _examined(subject: Subject, coverage: AnchorCoverage, findings: Sequence[Finding]) -> Examined:
    share = coverage.share()
    numbers: dict[str, float | int | str | bool | None] = {
        "objects": share.count,
        "images": coverage.num_images,
        "matched": share.matched,
        "rescued": share.rescued,
        "never": share.never,
    }
    names = subject.train.categories.names
    groups = [*coverage.by_side(), *zip(names, coverage.by_class(len(names)), strict=True)]
    for name, part in groups:
        if part.count:
            numbers[f"matched {name}"] = part.matched
            numbers[f"rescued {name}"] = part.rescued
            numbers[f"never {name}"] = part.never
    return Examined(
        f"of {share.count}: {share.matched:.1%} matched, {share.rescued:.1%} rescued, "
        f"{share.never:.1%} never",
        tuple(findings),
        numbers,
    )


def _severity(coverage: AnchorCoverage) -> str | None:
    share = coverage.share()
    never = _at_least(share.never, share.count)
    unmatched = _at_least(share.rescued + share.never, share.count)
    if never > _NEVER[1] or unmatched > _UNMATCHED[1]:
        return "severe"
    if never > _NEVER[0] or unmatched > _UNMATCHED[0]:
        return "warning"
    return None


def _at_least(share: float, count: int) -> float:
    """What the share is at least, two standard errors below what a sample of objects says."""
    return share - 2 * math.sqrt(share * (1 - share) / count) if count else 0.0


def _unreached(
    subject: Subject, coverage: AnchorCoverage, *, remedy: str, patch: Tree | None
) -> list[Finding]:
    severity = _severity(coverage)
    if severity is None:
        return []
    share = coverage.share()
    code, reason = _kind(subject, coverage)
    return [
        Finding(
            code=code,
            severity="severe" if severity == "severe" else "warning",
            what=f"{reason}: of {share.count} objects {share.matched:.0%} are matched by an "
            f"anchor, {share.rescued:.0%} only by a low-quality match, {share.never:.0%} never "
            f"({_where(coverage)})",
            why="An object without an anchor is taught as background; one that is only rescued is "
            "learned from a single badly fitting anchor.",
            remedy=remedy or "`retina data anchors CONFIG` proposes a mend.",
            patch=patch,
            numbers={
                "matched": share.matched,
                "rescued": share.rescued,
                "never": share.never,
                "median_side": float(np.median(coverage.sides)),
            },
        )
    ]


def _kind(subject: Subject, coverage: AnchorCoverage) -> tuple[str, str]:
    """The code, and what is the matter, from how large the objects are."""
    config = subject.config
    side, finest = float(np.median(coverage.sides)), subject.strides[0]
    anchors = config.model.anchors
    smallest = anchors.sizes[0] * min(anchors.scales)
    largest = anchors.sizes[-1] * max(anchors.scales)
    if smallest > 2 * side:
        return "anchors_too_large", (
            f"the anchors are too large: the smallest is {smallest:.0f} pixels, half of the "
            f"objects are below {side:.0f} at the network's input"
        )
    if largest < side / 2:
        return "anchors_too_small", (
            f"the anchors are too small: the largest is {largest:.0f} pixels, half of the objects "
            f"are above {side:.0f} at the network's input"
        )
    if side < 2 * finest:
        return "objects_too_small", (
            f"the objects are too small at the network's input ({config.preprocess.min_size} × "
            f"{config.preprocess.max_size}): half of them are below {side:.0f} pixels, on a grid "
            f"of {finest}"
        )
    return "anchors_unfit", "the anchors do not fit the objects' sizes and shapes"


def _where(coverage: AnchorCoverage) -> str:
    """Where most of the unmatched objects are, by size."""
    rows = [(name, part) for name, part in coverage.by_side() if part.count]
    name, part = max(rows, key=lambda row: row[1].count * (1 - row[1].matched))
    return f"worst by number: {name} pixels, {part.matched:.0%} of {part.count} matched"


def _missed_class(subject: Subject, coverage: AnchorCoverage) -> list[Finding]:
    """Classes that fare badly where the whole fares well."""
    names = subject.train.categories.names
    bad = [
        f"{name} ({part.matched:.0%} of {part.count})"
        for name, part in zip(names, coverage.by_class(len(names)), strict=True)
        if part.count >= _FEW_OBJECTS and part.matched < 1 - _UNMATCHED[1]
    ]
    if not bad:
        return []
    return [
        Finding(
            code="anchors_miss_class",
            severity="warning",
            what=f"anchors match few objects of some classes: {', '.join(bad[:5])}",
            why="These classes will be found worse than the others.",
            remedy="`retina data anchors CONFIG` proposes anchors; look at its table by size.",
            numbers={"classes": len(bad)},
        )
    ]


def _remedy(subject: Subject, images: Sequence[InputImage]) -> tuple[str, Tree | None]:
    """The least change that reaches the objects: other anchors, a larger input, or P2."""
    proposals = proposed(subject, images)
    fitted = next(proposal for proposal in proposals if proposal.name == "fitted")
    reached = fitted.coverage.share().matched
    if reached >= _ENOUGH:
        return _says(fitted), fitted.patch()
    for factor, matched, patch in _larger_inputs(subject):
        if matched >= _ENOUGH:
            size = patch["preprocess"]
            return (
                f"A {factor:g} times larger input (preprocess.min_size {size['min_size']}) would "
                f"let {matched:.0%} be matched.",
                patch,
            )
    best = best_proposal(proposals)
    if best.name == "current":
        return "No anchors of this kind reach them; use images of a higher resolution.", None
    return _says(best), best.patch()


def proposed(subject: Subject, images: Sequence[InputImage]) -> tuple[AnchorProposal, ...]:
    """The sets of anchors that ``retina data anchors`` compares."""
    config = subject.config
    return propose_anchors(
        images,
        current=config.model.anchors,
        strides=subject.strides,
        assigner=config.objective.assigner.build(),
        size_divisor=config.preprocess.size_divisor,
        pad_to=config.preprocess.pad_to,
    )


def _says(proposal: AnchorProposal) -> str:
    share = proposal.coverage.share()
    extra = " and a level P2 (stride 4)" if proposal.strides[0] == 4 else ""
    return f"Anchors fitted to the objects{extra} would let {share.matched:.0%} be matched."


def _larger_inputs(subject: Subject) -> Iterator[tuple[float, float, Tree]]:
    """Larger inputs, up to the images' own size, with the share that would be matched."""
    config = subject.config
    size = config.preprocess
    shorter = float(np.median(subject.train.image_sizes.min(axis=1)))
    for factor in (1.5, 2.0, 3.0, 4.0):
        low, high = (round(side * factor / 32) * 32 for side in (size.min_size, size.max_size))
        if low > 1.1 * shorter or size.pad_to is not None:
            return
        patch: Tree = {"preprocess": {"min_size": low, "max_size": high}}
        larger = config.model_copy(
            update={"preprocess": size.model_copy(update=patch["preprocess"])}
        )
        changed = Subject(larger, subject.train, subject.validation)
        images = sampled(changed, _SHORT_BUDGET)
        yield factor, measured(changed, images).share().matched, patch
