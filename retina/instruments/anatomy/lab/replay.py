"""What a γ and an α would make of a sample: who makes up the loss and pulls at the weights.

Letters: F foreground anchors, K classes, N bins of the logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retina.instruments.anatomy.elements import FocalSetting, element_losses
from retina.instruments.anatomy.lab.sample import LabSample, LogitHistogram

NOISE_RATE = 0.1
"""The share of objects that are given a wrong label."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a sum over all anchors and classes; they add up to 1."""

    easy_negatives: float
    other_negatives: float
    positives: float


@dataclass(frozen=True, slots=True)
class LabCell:
    """One γ and α on the sample.

    A wrong label is, in equal parts, one of another class, each as likely as the next, or missing.
    It is counted where the label is wrong: at the own class of the object's foreground anchors,
    which is taught as a negative, and at the class that stands there instead.

    Attributes:
        gamma, alpha: the loss.
        loss: who makes it up.
        gradient: who makes up the gradient's L1 norm with respect to the logits.
        noise_pull: the gradient of a wrong label over that of the same label when it is right.
        noise_share: of the whole gradient, drawn by wrong labels on `NOISE_RATE` of the objects.
    """

    gamma: float
    alpha: float | None
    loss: Shares
    gradient: Shares
    noise_pull: float
    noise_share: float


def replay(
    sample: LabSample, gammas: Sequence[float], alphas: Sequence[float | None]
) -> tuple[LabCell, ...]:
    """Every combination, γ by γ.

    The expectation over all ways to choose the wrong labels, not one draw of them.
    """
    cells = []
    for gamma in gammas:
        sums = _GammaSums.of(sample, gamma)
        cells += [_cell(sums, sample.num_classes, gamma, alpha) for alpha in alphas]
    return tuple(cells)


@dataclass(frozen=True, slots=True)
class _GammaSums:
    """Sums at one γ without α, which is a factor: loss and gradient in that order.

    Attributes:
        easy, other: of the negatives.
        positives: of the own classes of foreground anchors.
        own_as_negative: the gradient of these, were they negatives.
        other_as_negative: the gradient of their other classes, as they are.
        other_as_positive: the gradient of these, were they positives.
    """

    easy: tuple[float, float]
    other: tuple[float, float]
    positives: tuple[float, float]
    own_as_negative: float
    other_as_negative: float
    other_as_positive: float

    @classmethod
    def of(cls, sample: LabSample, gamma: float) -> _GammaSums:
        background = _of_bins(sample.background, gamma)
        others = _of_bins(sample.other_classes, gamma)
        negatives = background + others  # (2, N)
        easy = sample.background.easy
        own = sample.own_class.double()
        return cls(
            easy=_pair(negatives[:, easy].sum(dim=1)),
            other=_pair(negatives[:, easy.stop :].sum(dim=1)),
            positives=_pair(_elements(-own, gamma).sum(dim=1)),
            own_as_negative=float(_elements(own, gamma)[1].sum()),
            other_as_negative=float(others[1].sum()),
            other_as_positive=float(_of_bins(sample.other_classes, gamma, sign=-1.0)[1].sum()),
        )


def _elements(wrong_way: Tensor, gamma: float) -> Tensor:
    """``(2, …)``: loss and gradient without α of elements with these logits for the wrong side."""
    nothing_positive = torch.zeros_like(wrong_way, dtype=torch.bool)
    losses = element_losses(wrong_way, nothing_positive, FocalSetting(gamma, None))
    return torch.stack([losses.loss, losses.gradient])


def _of_bins(histogram: LogitHistogram, gamma: float, sign: float = 1.0) -> Tensor:
    """``(2, N)``: loss and gradient of all logits in each bin, every one taken for their mean."""
    return _elements(sign * histogram.means, gamma) * histogram.counts


def _pair(values: Tensor) -> tuple[float, float]:
    loss, gradient = values.tolist()
    return loss, gradient


def _cell(sums: _GammaSums, num_classes: int, gamma: float, alpha: float | None) -> LabCell:
    foreground, background = (1.0, 1.0) if alpha in (None, 1) else (alpha, 1 - alpha)
    loss, gradient = (
        _shares(
            background * sums.easy[kind],
            background * sums.other[kind],
            foreground * sums.positives[kind],
        )
        for kind in (0, 1)
    )
    right = foreground * sums.positives[1]
    taught_away = background * sums.own_as_negative
    missing, missing_right = taught_away, right
    per_class = 1 / max(1, num_classes - 1)
    other = taught_away + foreground * sums.other_as_positive * per_class
    other_right = right + background * sums.other_as_negative * per_class
    if num_classes == 1:  # there is no other class to be wrong with
        other, other_right = missing, missing_right
    wrong = (missing + other) / 2
    before = (missing_right + other_right) / 2
    total = background * (sums.easy[1] + sums.other[1]) + right
    noisy_total = total + NOISE_RATE * (wrong - before)
    return LabCell(
        gamma=gamma,
        alpha=alpha,
        loss=loss,
        gradient=gradient,
        noise_pull=wrong / before if before > 0 else 0.0,
        noise_share=NOISE_RATE * wrong / noisy_total if noisy_total > 0 else 0.0,
    )


def _shares(*parts: float) -> Shares:
    total = sum(parts)
    return Shares(*(part / total if total > 0 else 0.0 for part in parts))
