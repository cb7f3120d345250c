"""Whether the anchors reach the objects at the size that the network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from retina.configuration import Tree
from retina.instruments.doctor.anchors.coverage import (
    AnchorCoverage,
    InputImage,
    Share,
    measure_coverage,
)
from retina.instruments.doctor.anchors.proposals import AnchorProposal, propose_for, sample_images
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding, Level, Number
from retina.wording import counted

_SHORT_BUDGET = 2 * 10**7
_FULL_BUDGET = 2 * 10**8
"""Overlaps of anchors and objects that are computed."""

_UNMATCHED = (0.03, 0.10)
_BADLY_MATCHED = (0.20, 0.40)
"""Shares of the objects without any anchor, and without a good one: a warning, and an error. The
published anchors leave 15 % of COCO's objects without a good one."""

_FEW_OBJECTS = 20
ENOUGH = 0.9
"""A fix that lets the assigner match this share of the objects is enough."""


def check_anchors_on_a_sample(context: CheckContext) -> CheckResult:
    """Coverage on a sample; the search for a fix is left to ``retina data anchors``."""
    coverage = _measured(context, sample_images(context, _SHORT_BUDGET))
    fix = "`retina data anchors CONFIG` proposes a fix."
    return _result(context, coverage, _unreached(context, coverage, fix=fix, patch=None))


def check_anchors(context: CheckContext) -> CheckResult:
    """The same on more images, and where objects are missed, a search for what reaches them."""
    images = sample_images(context, _FULL_BUDGET)
    coverage = _measured(context, images)
    if _level(coverage) is None:
        return _result(context, coverage, _missed_classes(context, coverage))
    fix, patch = _fix(context, images)
    return _result(context, coverage, _unreached(context, coverage, fix=fix, patch=patch))


def _measured(context: CheckContext, images: Sequence[InputImage]) -> AnchorCoverage:
    """The coverage by the configured anchors and assigner."""
    return measure_coverage(
        images,
        anchors=context.config.model.anchors.build(context.strides),
        assigner=context.config.objective.assigner.build(),
    )


def _result(
    context: CheckContext, coverage: AnchorCoverage, findings: Sequence[Finding]
) -> CheckResult:
    share = coverage.share()
    numbers: dict[str, Number] = {
        "objects": share.count,
        "images": coverage.num_images,
        "matched": share.matched,
        "rescued": share.low_quality,
        "never": share.unmatched,
    }
    names = context.train.categories.distinct_names
    groups = [*coverage.by_side(), *zip(names, coverage.by_class(len(names)), strict=True)]
    for name, part in groups:
        if part.count:
            numbers[f"matched {name}"] = part.matched
            numbers[f"rescued {name}"] = part.low_quality
            numbers[f"never {name}"] = part.unmatched
    return CheckResult(
        in_short(share),
        tuple(findings),
        numbers,
    )


def in_short(share: Share) -> str:
    """The outcomes in so few letters (48) that the doctor's table fits 80 columns."""
    return (
        f"{share.count}: {_percent(share.matched)} matched, "
        f"{_percent(share.low_quality)} low-quality, {_percent(share.unmatched)} none"
    )


def _percent(share: float) -> str:
    """Whole percents; only none of them is 0 %, and only all of them 100 %."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def _level(coverage: AnchorCoverage) -> Level | None:
    share = coverage.share()
    unmatched = _at_least(share.unmatched, share.count)
    badly_matched = _at_least(share.low_quality + share.unmatched, share.count)
    if unmatched > _UNMATCHED[1] or badly_matched > _BADLY_MATCHED[1]:
        return "error"
    if unmatched > _UNMATCHED[0] or badly_matched > _BADLY_MATCHED[0]:
        return "warning"
    return None


def _at_least(share: float, count: int) -> float:
    """What the share is at least, two standard errors below what a sample of objects says."""
    return share - 2 * math.sqrt(share * (1 - share) / count) if count else 0.0


def _unreached(
    context: CheckContext, coverage: AnchorCoverage, *, fix: str, patch: Tree | None
) -> list[Finding]:
    level = _level(coverage)
    if level is None:
        return []
    share = coverage.share()
    code, cause = _cause(context, coverage)
    return [
        Finding(
            code=code,
            level=level,
            what=f"{cause}: of {counted(share.count, 'object')} {share.matched:.0%} are "
            "matched by an "
            f"anchor, {share.low_quality:.0%} only by a low-quality match, {share.unmatched:.0%} "
            f"by none ({_where(coverage)})",
            why="An object without an anchor is taught as background; one that has only a "
            "low-quality match is learned from a single badly fitting anchor.",
            fix=fix,
            patch=patch,
            numbers={
                "matched": share.matched,
                "rescued": share.low_quality,
                "never": share.unmatched,
                "median_side": float(np.median(coverage.sides)),
            },
        )
    ]


def _cause(context: CheckContext, coverage: AnchorCoverage) -> tuple[str, str]:
    """The code, and what is the matter, from how large the objects are."""
    config = context.config
    side, finest = float(np.median(coverage.sides)), context.strides[0]
    anchors = config.model.anchors
    smallest = anchors.sizes[0] * min(anchors.scales)
    largest = anchors.sizes[-1] * max(anchors.scales)
    # To a rule that adapts to each object it is cells that matter, hardly the anchors' sizes.
    adapts = config.objective.assigner.build().foreground_iou is None
    if smallest > 2 * side and not adapts:
        return "anchors_too_large", (
            f"the anchors are too large: the smallest is {smallest:.0f} pixels, half of the "
            f"objects are below {side:.0f} at the network's input"
        )
    if largest < side / 2 and not adapts:
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
    """Where most of the badly matched objects are, by size."""
    rows = [(name, part) for name, part in coverage.by_side() if part.count]
    name, part = max(rows, key=lambda row: row[1].count * (1 - row[1].matched))
    return f"worst by number: {name} pixels, {part.matched:.0%} of {part.count} matched"


def _missed_classes(context: CheckContext, coverage: AnchorCoverage) -> list[Finding]:
    """Classes that fare badly where the whole fares well."""
    names = context.train.categories.distinct_names
    bad = [
        f"{name} ({part.matched:.0%} of {part.count})"
        for name, part in zip(names, coverage.by_class(len(names)), strict=True)
        if part.count >= _FEW_OBJECTS and part.matched < 1 - _BADLY_MATCHED[1]
    ]
    if not bad:
        return []
    return [
        Finding(
            code="anchors_miss_class",
            level="warning",
            what=f"anchors match few objects of some classes: {', '.join(bad[:5])}",
            why="These classes will be found worse than the others.",
            fix="`retina data anchors CONFIG` proposes anchors; look at its table by size.",
            numbers={"classes": len(bad)},
        )
    ]


def _fix(context: CheckContext, images: Sequence[InputImage]) -> tuple[str, Tree | None]:
    """The least change that reaches the objects: other anchors, a larger input, or P2."""
    proposals = propose_for(context, images)
    if proposals.fitted.coverage.share().matched >= ENOUGH:
        return _described(proposals.fitted), proposals.fitted.patch()
    for factor, matched, patch in _larger_inputs(context):
        if matched >= ENOUGH:
            size = patch["preprocess"]
            return (
                f"A {factor:g} times larger input (preprocess.min_size {size['min_size']}) would "
                f"let {matched:.0%} be matched.",
                patch,
            )
    if proposals.best is proposals.current:
        return "No anchors of this kind reach them; use images of a higher resolution.", None
    return _described(proposals.best), proposals.best.patch()


def _described(proposal: AnchorProposal) -> str:
    share = proposal.coverage.share()
    extra = " and a level P2 (stride 4)" if proposal.has_p2 else ""
    return f"Anchors fitted to the objects{extra} would let {share.matched:.0%} be matched."


def _larger_inputs(context: CheckContext) -> Iterator[tuple[float, float, Tree]]:
    """Larger inputs, up to the images' own size, with the share that would be matched."""
    config = context.config
    size = config.preprocess
    shorter = float(np.median(context.train.image_sizes.min(axis=1)))
    for factor in (1.5, 2.0, 3.0, 4.0):
        low, high = (round(side * factor / 32) * 32 for side in (size.min_size, size.max_size))
        if low > 1.1 * shorter or size.pad_to is not None:
            return
        patch: Tree = {"preprocess": {"min_size": low, "max_size": high}}
        larger = config.model_copy(
            update={"preprocess": size.model_copy(update=patch["preprocess"])}
        )
        changed = CheckContext(larger, context.train, context.validation)
        images = sample_images(changed, _SHORT_BUDGET)
        yield factor, _measured(changed, images).share().matched, patch
