"""Anchors that fit a data set: sizes, scales, ratios and levels by k-means and coordinate search.

The search counts the objects whose best overlap reaches the foreground IoU, which is what the
IoU assigner asks first; what it proposes is then measured by the real assigner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retina.configuration import Tree
from retina.geometry.anchors import AnchorConfig
from retina.instruments.doctor.coverage.measuring import (
    AnchorCoverage,
    InputImage,
    measure_coverage,
)
from retina.instruments.doctor.coverage.shapes import Array, BoxSample, best_overlaps, level_shapes
from retina.objective.assignment import Assigner
from retina.structures import Size

_START_SIZES = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Anchor sizes to start from, in strides of the level (Lin et al. 2017 take 4)."""

_STEPS = (0.8, 0.9, 0.95, 1.05, 1.1, 1.25)
_MOST_ROUNDS = 8
_SMALLEST_GAIN = 1e-4

WORTH = 0.02
"""Another set of anchors is proposed where it matches this share of the objects more."""

P2_WORTH = 0.05
"""A level P2 is proposed where it matches this share more than the other levels can."""


@dataclass(frozen=True, slots=True)
class AnchorSetting:
    """What is searched: one set of anchors.

    Attributes:
        sizes: ``(L,)`` of the levels, in pixels.
        scales: of every level, factors on its size.
        ratios: of every level, height over width.
        strides: of the L levels, finest first.
    """

    sizes: Array
    scales: Array
    ratios: Array
    strides: tuple[int, ...]

    def config(self, base: AnchorConfig) -> AnchorConfig:
        """The same as a config, in rounded numbers; all else is as in ``base``."""
        return base.model_copy(
            update={
                "sizes": tuple(_short(size) for size in self.sizes),
                "scales": tuple(round(float(scale), 2) for scale in self.scales),
                "ratios": tuple(round(float(ratio), 2) for ratio in self.ratios),
                "scales_per_level": None,
                "ratios_per_level": None,
            }
        )


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

    def patch(self) -> Tree:
        """The change of an experiment's config."""
        anchors: Tree = {
            "sizes": list(self.config.sizes),
            "scales": list(self.config.scales),
            "ratios": list(self.config.ratios),
            "scales_per_level": None,
            "ratios_per_level": None,
        }
        if self.strides[0] == 4:
            return {"model": {"backbone": {"finest_map": "c2"}, "anchors": anchors}}
        return {"model": {"anchors": anchors}}


def propose_anchors(
    images: Sequence[InputImage],
    *,
    current: AnchorConfig,
    strides: Sequence[int],
    assigner: Assigner,
    size_divisor: int,
    pad_to: Size | None = None,
) -> tuple[AnchorProposal, ...]:
    """The anchors as they are, a fitted set for the same levels, and one with P2 where it lacks.

    Args:
        images: at the size of the network's input.
        current: the configured anchors.
        strides: of the pyramid's levels.
        assigner: the one that trains.
        size_divisor: of the padding.
        pad_to: the padded size, where it is fixed.
    """
    sample = BoxSample.of(images, size_divisor=size_divisor, pad_to=pad_to)
    # A rule that adapts to each object asks for no IoU; half is what a good anchor reaches.
    threshold = 0.5 if assigner.foreground_iou is None else assigner.foreground_iou

    def measured(name: str, config: AnchorConfig, of: Sequence[int]) -> AnchorProposal:
        coverage = measure_coverage(
            images,
            anchors=config.build(of),
            assigner=assigner,
            size_divisor=size_divisor,
            pad_to=pad_to,
        )
        return AnchorProposal(name, config, tuple(of), coverage)

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
    return tuple(proposals)


def best_proposal(proposals: Sequence[AnchorProposal]) -> AnchorProposal:
    """The one to take: a simpler set, unless another matches clearly more objects."""
    best = proposals[0]
    for proposal in proposals[1:]:
        gain = proposal.coverage.share().matched - best.coverage.share().matched
        if gain >= (P2_WORTH if proposal.strides[0] < proposals[0].strides[0] else WORTH):
            best = proposal
    return best


def fit_anchors(
    sample: BoxSample,
    *,
    strides: Sequence[int],
    num_scales: int,
    num_ratios: int,
    threshold: float,
    center_offset: float,
) -> AnchorSetting:
    """Search sizes, scales and ratios that reach ``threshold`` for as many objects as possible.

    The sizes of the levels stay in the proportion of their strides, so that one head can serve all
    of them; the number of anchors a cell stays as it is.
    """
    steps = np.array(strides, dtype=np.float64)
    octave = 2.0 ** (np.arange(num_scales) / num_scales)
    log_ratios = np.log(sample.sides[:, 1] / sample.sides[:, 0])
    clustered: Array = np.exp(_centers(log_ratios, num_ratios))
    usual: Array = np.float64(2.0) ** (np.arange(num_ratios) - (num_ratios - 1) / 2)

    def score(setting: AnchorSetting) -> float:
        shapes = level_shapes(setting.sizes, setting.scales, setting.ratios)
        best = best_overlaps(sample, shapes, strides, center_offset)
        return float((best >= threshold).mean() + 0.1 * best.mean()) if len(best) else 0.0

    starts = [
        AnchorSetting(steps * factor, octave, ratios, tuple(strides))
        for factor in _START_SIZES
        for ratios in (usual, clustered)
    ]
    return _climb(max(starts, key=score), score)


def _climb(start: AnchorSetting, score: Callable[[AnchorSetting], float]) -> AnchorSetting:
    """Change one number after the other for as long as that helps."""
    best, highest = start, score(start)
    for _ in range(_MOST_ROUNDS):
        before = highest
        for change in _neighbours(best):
            candidate = change(best)
            reached = score(candidate)
            if reached > highest + _SMALLEST_GAIN:
                best, highest = candidate, reached
        if highest == before:
            break
    return best


def _neighbours(setting: AnchorSetting) -> list[Callable[[AnchorSetting], AnchorSetting]]:
    def sizes(factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, sizes=now.sizes * factor)

    def scale(index: int, factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, scales=_scaled(now.scales, index, factor))

    def ratio(index: int, factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, ratios=_scaled(now.ratios, index, factor))

    return [
        change
        for factor in _STEPS
        for change in (
            sizes(factor),
            # the first scale stays 1: the sizes move it
            *(scale(index, factor) for index in range(1, len(setting.scales))),
            *(ratio(index, factor) for index in range(len(setting.ratios))),
        )
    ]


def _scaled(values: Array, index: int, factor: float) -> Array:
    changed = values.copy()
    changed[index] *= factor
    return changed


def _centers(values: Array, count: int) -> Array:
    """k-means in one dimension (Lloyd), started at the quantiles; ascending."""
    if not len(values):
        return np.linspace(-np.log(2), np.log(2), count)
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(50):
        owners = np.abs(values[:, None] - centers).argmin(axis=1)
        moved = np.array(
            [
                values[owners == k].mean() if (owners == k).any() else centers[k]
                for k in range(count)
            ]
        )
        if np.allclose(moved, centers):
            break
        centers = moved
    return np.sort(centers)


def _short(size: float) -> float:
    return float(f"{size:.3g}")
