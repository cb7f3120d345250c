"""The curves of the focal loss paper (Lin et al. 2017): figures 1 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.structures import FloatArray

PAPER_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)

FRACTIONS = np.unique(np.concatenate([np.linspace(0, 1, 201), 1 - np.geomspace(0.1, 1e-6, 101)]))
"""Where a cumulative loss is given: evenly, and ever finer towards the hardest samples."""

HARDEST = 0.01


def focal(wrong_way: FloatArray, gamma: float) -> FloatArray:
    """The focal loss without α of elements whose logit for the wrong side is given, float64."""
    log_wrong = -np.logaddexp(0.0, -wrong_way)  # log(1 - p_t)
    return np.asarray(np.exp(gamma * log_wrong) * np.logaddexp(0.0, wrong_way))


def loss_curves(p_t: FloatArray, gammas: Sequence[float] = PAPER_GAMMAS) -> dict[float, FloatArray]:
    """Figure 1: the loss over the probability of the ground truth, by γ."""
    return {gamma: focal(np.log1p(-p_t) - np.log(p_t), gamma) for gamma in gammas}


@dataclass(frozen=True, slots=True)
class CumulativeLoss:
    """Figure 4: the samples sorted by their loss, and how much of it they have made up so far.

    Attributes:
        fractions: ``(F,)`` of the samples, easiest first, 0..1.
        values: by γ, ``(F,)`` the share of the loss that this fraction makes up, 0..1; empty where
            there are no samples.
        hardest: by γ, the share that the hardest `HARDEST` of the samples make up; empty likewise.
        num_samples: that were sorted.
    """

    fractions: FloatArray
    values: dict[float, FloatArray]
    hardest: dict[float, float]
    num_samples: int


def cumulative_loss(
    counts: FloatArray,
    logit_sums: FloatArray,
    *,
    gammas: Sequence[float] = PAPER_GAMMAS,
    fractions: FloatArray = FRACTIONS,
) -> CumulativeLoss:
    """The cumulative normalised loss from a histogram instead of from every sample.

    The loss rises with the logit z for the wrong side whatever γ is, so bins in the order of z are
    samples in the order of the loss. Every sample of a bin gets the loss of the bin's mean logit;
    bins of width w err by about (1 + γ)² w² / 24 of it.

    Args:
        counts: ``(N,)`` samples in each bin, in the order of z.
        logit_sums: ``(N,)`` the sum of their z.
        gammas: to draw a curve for each; α, equal for all samples, cancels out.
        fractions: where to give the curve.
    """
    filled = counts > 0
    if not filled.any():
        return CumulativeLoss(fractions, {}, {}, 0)
    counts, means = counts[filled], logit_sums[filled] / counts[filled]
    samples = _from_zero(counts)
    values, hardest = {}, {}
    for gamma in gammas:
        losses = _from_zero(counts * focal(means, gamma))
        values[gamma] = np.interp(fractions, samples, losses)
        hardest[gamma] = float(1 - np.interp(1 - HARDEST, samples, losses))
    return CumulativeLoss(fractions, values, hardest, int(counts.sum()))


def _from_zero(values: FloatArray) -> FloatArray:
    """The running sum of the values, as shares of their total, with a zero before it."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    return running / running[-1] if running[-1] > 0 else running
