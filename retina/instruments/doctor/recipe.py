"""What the doctor measures, as choices of the config that is made for a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retina.experiment import ExperimentConfig
from retina.experiment.recipe import Choice, Facts, Recipe
from retina.experiment.recipe.choosing import max_size_of
from retina.instruments.doctor.anchors.check import ENOUGH
from retina.instruments.doctor.anchors.coverage import input_images
from retina.instruments.doctor.anchors.proposals import (
    WORTH,
    AnchorProposal,
    Proposals,
    propose_for,
    sample_images,
)
from retina.instruments.doctor.anchors.search import BoxSample
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.speed_and_memory import check_memory
from retina.wording import counted

_BUDGET = 5 * 10**7
_MOST_IMAGES = 1000
_MOST_PARTS = 16

_LARGE_ENOUGH = {0.5: 24, 0.1: 8}
"""Pixels (the root of the area) that a quantile of the objects should have at the input. To chess
pieces of 25 a third more brought less than 0.01 of AP, for half as much time again
(benchmarks/small_data_2core_202611.md). 8 is a cell of the finest level: smaller ones share it."""


def measured(recipe: Recipe, facts: Facts, overrides: Sequence[str]) -> Recipe:
    """The recipe with input size, anchors and micro-batches as measured.

    Args:
        recipe: what is usual.
        facts: about data and machine.
        overrides: changes that will be laid over the config.
    """
    recipe = _with_input(recipe, facts, overrides)
    if recipe.config(overrides).training.batch_size == "auto":  # decided when it begins
        return recipe
    if not facts.machine.memory:  # a CPU's networks are small here, and its steps take seconds
        return recipe
    return recipe.with_choices(*_micro_batches(recipe.config(overrides), facts))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A size of the input with the anchors that suit it.

    Attributes:
        recipe: of this size.
        config: the same, with the changes.
        proposals: the anchors that were compared.
        chosen: one of them.
    """

    recipe: Recipe
    config: ExperimentConfig
    proposals: Proposals
    chosen: AnchorProposal

    @property
    def matched(self) -> float:
        """The share of the objects that an anchor matches."""
        return self.chosen.coverage.share().matched


def _with_input(recipe: Recipe, facts: Facts, overrides: Sequence[str]) -> Recipe:
    """The recipe with an input that is large enough for the objects, and anchors that fit."""
    config = recipe.config(overrides)
    sizes = [config.preprocess.min_size]
    if not any(text.startswith("preprocess") for text in overrides):
        sizes += _larger_sizes(sizes[0], min(recipe.largest_min_size, facts.shorter_side))
    if config.objective.assigner.build().foreground_iou is not None:
        return _with_anchors(recipe, facts, overrides, sizes)
    if len(sizes) == 1:
        return recipe
    size = config.preprocess
    images = input_images(  # as detection sees them, not at all the sizes of training
        facts.train.dataset, size, sizes=[(size.min_size, size.max_size)], limit=_MOST_IMAGES
    )
    return _with_large_objects(recipe, BoxSample.of(images), sizes)


def _with_large_objects(recipe: Recipe, sample: BoxSample, sizes: Sequence[int]) -> Recipe:
    """The recipe with the smallest input at which objects are large enough.

    Args:
        recipe: for an assigner that adapts to each object, whose anchors stay as they are.
        sample: the objects at the first of the sizes.
        sizes: of the input, ascending.
    """
    if not len(sample):
        return recipe
    usual, wanted = sizes[0], list(_LARGE_ENOUGH.values())
    pixels = np.quantile(np.sqrt(sample.sides.prod(axis=1)), list(_LARGE_ENOUGH))
    enough = (size for size in sizes if (pixels * size / usual >= wanted).all())
    chosen = next(enough, sizes[-1])
    if chosen == usual:
        return recipe
    middle, small = pixels * chosen / usual
    about = (
        f"for small objects: half of the boxes have at most {middle:.1f} pixels here (root of the "
        f"area), a tenth at most {small:.1f}; at {usual} {pixels[0]:.1f} and {pixels[1]:.1f}; "
        f"wanted are {wanted[0]} and {wanted[1]}: {(chosen / usual) ** 2:.1f} times the pixels"
    )
    return _with_size(recipe, chosen, about)


def _with_anchors(
    recipe: Recipe, facts: Facts, overrides: Sequence[str], sizes: Sequence[int]
) -> Recipe:
    """The recipe with the smallest input at which anchors match nearly all objects."""
    usual = sizes[0]
    fits: list[_Fit] = []
    for size in sizes:
        fit = _fit(recipe if size == usual else _with_size(recipe, size), facts, overrides)
        if fit is None:
            return recipe
        fits.append(fit)
        if fit.matched >= ENOUGH:
            break
    best = next(fit for fit in fits if fit.matched >= fits[-1].matched - WORTH)
    choices = list(_anchors(best))
    if best is not fits[0]:
        choices.append(
            Choice(
                "preprocess.min_size",
                best.config.preprocess.min_size,
                f"for small objects: at {usual} anchors match {fits[0].matched:.0%} of the boxes, "
                f"here {best.matched:.0%}",
            )
        )
    return best.recipe.with_choices(*choices)


def _fit(recipe: Recipe, facts: Facts, overrides: Sequence[str]) -> _Fit | None:
    """The anchors for a size of the input; None where no image has an object."""
    context = CheckContext(recipe.config(overrides), facts.train.dataset)
    images = sample_images(context, _BUDGET)
    if not any(len(image.targets) for image in images):
        return None
    proposals = propose_for(context, images)
    if facts.machine.device == "cpu":  # P2 takes four times as long
        proposals = Proposals(proposals.sets[:2])
    return _Fit(recipe, context.config, proposals, proposals.best)


def _larger_sizes(size: int, most: float) -> list[int]:
    """Multiples of 32 that are clearly larger, each about a quarter; the last is the most."""
    sizes = [int(most) // 32 * 32]
    while (smaller := round(sizes[0] / 1.25 / 32) * 32) > 1.1 * size:
        sizes.insert(0, smaller)
    return sizes if sizes[-1] > 1.1 * size else []


def _with_size(recipe: Recipe, min_size: int, about: str = "") -> Recipe:
    longer = Choice("preprocess.max_size", max_size_of(min_size), "longer images are scaled down")
    return recipe.with_choices(Choice("preprocess.min_size", min_size, about), longer)


def _anchors(fit: _Fit) -> Iterator[Choice]:
    chosen, proposals, config = fit.chosen, fit.proposals, fit.config
    share, usual = chosen.coverage.share(), proposals.current.coverage.share()
    at = f"at {config.preprocess.min_size} × {config.preprocess.max_size}"
    what = (
        f"{share.matched:.1%} of {counted(share.count, 'training box')} are matched by an anchor "
        f"{at}, {share.unmatched:.1%} by none"
    )
    if chosen is proposals.current:
        yield Choice(
            "model.anchors.sizes",
            list(chosen.config.sizes),
            f"the usual ones fit: {what}; no others match clearly more",
        )
        return
    if chosen.has_p2:
        yield Choice(
            "model.backbone.finest_map", "c2", "a finer level, stride 4, for the small objects"
        )
    yield Choice(
        "model.anchors.sizes",
        list(chosen.config.sizes),
        f"fitted: {what} (the usual anchors match {usual.matched:.1%})",
    )
    yield Choice("model.anchors.scales", list(chosen.config.scales), "fitted, factors on each size")
    yield Choice("model.anchors.ratios", list(chosen.config.ratios), "fitted, height over width")


def _micro_batches(config: ExperimentConfig, facts: Facts) -> Iterator[Choice]:
    """In how many parts a batch must be computed to fit, by making a step."""
    config = config.from_scratch()  # as large, and nothing has to be fetched
    parts = config.training.accumulation_steps
    while True:
        training = config.training.model_copy(update={"accumulation_steps": parts})
        context = CheckContext(
            config.model_copy(update={"training": training}), facts.train.dataset
        )
        result = check_memory(context)
        more = [finding.patch for finding in result.findings if finding.patch]
        if not more or parts >= _MOST_PARTS:
            break
        parts = more[0]["training"]["accumulation_steps"]
    if parts > config.training.accumulation_steps:
        yield Choice(
            "training.accumulation_steps",
            parts,
            f"a step in {parts} parts fits into memory, in one it does not",
        )
