"""The sets of anchors that are compared: as they are, fitted, and fitted with a finer level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retina.configuration import Tree
from retina.errors import UserError
from retina.geometry.anchors import AnchorConfig
from retina.instruments.doctor.anchors.coverage import (
    AnchorCoverage,
    InputImage,
    input_images,
    measure_coverage,
    within_budget,
)
from retina.instruments.doctor.anchors.search import BoxSample, fit_anchors
from retina.instruments.doctor.context import CheckContext
from retina.objective.assignment import Assigner
from retina.runtime.splits import spread_indices

WORTH = 0.02
"""Another set of anchors is proposed where it matches this share of the objects more."""

P2_WORTH = 0.05
"""A level P2 is proposed where it matches this share more than the other levels can."""

_MOST_IMAGES = 200
_BUDGET = 4 * 10**8
"""Overlaps of anchors and objects for each measured set; P2 has four times the anchors."""


@dataclass(frozen=True, slots=True)
class AnchorProposal:
    """A set of anchors and what it would cover.

    Attributes:
        name: ``current``, ``fitted`` or ``fitted with P2``.
        config: the anchors.
        strides: of its levels.
        coverage: by the real assigner.
    """

    name: str
    config: AnchorConfig
    strides: tuple[int, ...]
    coverage: AnchorCoverage

    @property
    def has_p2(self) -> bool:
        """Whether its finest level is P2 (stride 4)."""
        return self.strides[0] == 4

    def patch(self) -> Tree:
        """The change of an experiment's config."""
        anchors: Tree = {
            "sizes": list(self.config.sizes),
            "scales": list(self.config.scales),
            "ratios": list(self.config.ratios),
            "scales_per_level": None,
            "ratios_per_level": None,
        }
        if self.has_p2:
            return {"model": {"backbone": {"finest_map": "c2"}, "anchors": anchors}}
        return {"model": {"anchors": anchors}}


@dataclass(frozen=True, slots=True)
class Proposals:
    """The sets of anchors that were compared.

    Attributes:
        sets: as they are, fitted, and fitted with P2 where it is not there yet.
    """

    sets: tuple[AnchorProposal, ...]

    @property
    def current(self) -> AnchorProposal:
        """The anchors as they are."""
        return self.sets[0]

    @property
    def fitted(self) -> AnchorProposal:
        """The best for the same levels."""
        return self.sets[1]

    @property
    def best(self) -> AnchorProposal:
        """The one to take: a simpler set, unless another matches clearly more objects."""
        best = self.current
        for proposal in self.sets[1:]:
            gain = proposal.coverage.share().matched - best.coverage.share().matched
            if gain >= (P2_WORTH if proposal.strides[0] < self.current.strides[0] else WORTH):
                best = proposal
        return best


def propose_anchors(
    images: Sequence[InputImage],
    *,
    current: AnchorConfig,
    strides: Sequence[int],
    assigner: Assigner,
) -> Proposals:
    """Fit anchors to objects, and measure all sets.

    Args:
        images: at the size of the network's input.
        current: the configured anchors.
        strides: of the pyramid's levels.
        assigner: the one that trains.
    """
    sample = BoxSample.of(images)
    # A rule that adapts to each object asks for no IoU; half is what a good anchor reaches.
    threshold = 0.5 if assigner.foreground_iou is None else assigner.foreground_iou

    def measured(name: str, config: AnchorConfig, levels: Sequence[int]) -> AnchorProposal:
        coverage = measure_coverage(images, anchors=config.build(levels), assigner=assigner)
        return AnchorProposal(name, config, tuple(levels), coverage)

    proposals = [measured("current", current, strides)]
    for name, levels in (("fitted", tuple(strides)), ("fitted with P2", (4, *strides))):
        if name == "fitted" or strides[0] > 4:
            fitted = fit_anchors(
                sample,
                strides=levels,
                num_scales=len((current.scales_per_level or (current.scales,))[0]),
                num_ratios=len((current.ratios_per_level or (current.ratios,))[0]),
                threshold=threshold,
                center_offset=current.center_offset,
            )
            proposals.append(measured(name, fitted.config(current), levels))
    return Proposals(tuple(proposals))


def sample_images(context: CheckContext, budget: int) -> list[InputImage]:
    """Images of the training split at the input's sizes, as many as the budget allows.

    Args:
        context: what is checked.
        budget: overlaps of anchors and objects; 10⁷ take about 0.2 s on one core.
    """
    images = input_images(
        context.train,
        context.config.preprocess,
        sizes=context.input_sizes,
        limit=_MOST_IMAGES,
    )
    count = within_budget(images, context.strides, budget)
    return [images[number] for number in spread_indices(len(images), count)]


def propose_for(context: CheckContext, images: Sequence[InputImage]) -> Proposals:
    """The proposals for an experiment, measured on some of its images."""
    return propose_anchors(
        images,
        current=context.config.model.anchors,
        strides=context.strides,
        assigner=context.config.objective.assigner.build(),
    )


def propose(context: CheckContext) -> Proposals:
    """The proposals as ``retina data anchors`` makes them.

    Raises:
        UserError: there is no object to fit anchors to.
    """
    images = sample_images(context, _BUDGET)
    if not any(len(image.targets) for image in images):
        raise UserError("no training image has an object to fit anchors to")
    return propose_for(context, images)
