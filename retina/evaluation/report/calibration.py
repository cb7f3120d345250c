"""Whether scores can be read as probabilities, and the temperature that mends them.

A detection is right if it has found an object at IoU 0.5; those in crowd regions are left out.

Letters: N detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from retina.evaluation.matching import Matching
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import BoolArray, FloatArray

_NUM_BINS = 10
_SMALLEST = 1e-6  # a score of 0 or 1 has no logit
_TEMPERATURES = (0.05, 20.0)
_OFF_THE_END = 1.01  # the search comes close to an end, but not to it


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Detections with scores from ``low`` up to ``high``.

    Attributes:
        low, high: the scores; ``high`` is not among them, but 1 is.
        count: of the detections.
        confidence: their mean score; None without any.
        precision: the share of them that is right; None without any.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from the share that is right.

    Attributes:
        bins: ten of equal width.
        ece: the expected calibration error: the mean distance of confidence and precision of the
            bins, each with the number of its detections.
        temperature: what the logits are divided by; None where none mends the scores: all or none
            are right, or the best one lies at an end of what is looked at.
        ece_after: that of the scores after it.
        bins_after: likewise.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    temperature: float | None
    ece_after: float | None
    bins_after: tuple[ReliabilityBin, ...]


def calibration(split: ScoredSplit, matching: Matching) -> Calibration | None:
    """The calibration; None without detections, or where scores are no probabilities."""
    is_judged = ~matching.is_ignored
    scores, is_true = split.problem.scores[is_judged], matching.is_true[is_judged]
    if len(scores) == 0 or scores.min() < 0 or scores.max() > 1:
        return None
    bins = reliability(scores, is_true)
    temperature = best_temperature(scores, is_true)
    if temperature is None:
        return Calibration(bins, calibration_error(bins), None, None, ())
    after = reliability(_sigmoid(_logits(scores) / temperature), is_true)
    return Calibration(bins, calibration_error(bins), temperature, calibration_error(after), after)


def reliability(scores: FloatArray, is_true: BoolArray) -> tuple[ReliabilityBin, ...]:
    """Ten bins.

    Args:
        scores: ``(N,)`` in 0..1.
        is_true: ``(N,)``.
    """
    edges = np.arange(_NUM_BINS + 1) / _NUM_BINS
    at = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, _NUM_BINS - 1)
    counts = np.bincount(at, minlength=_NUM_BINS)
    sums = np.bincount(at, scores, _NUM_BINS)
    right = np.bincount(at, is_true, _NUM_BINS)
    return tuple(
        ReliabilityBin(
            low=float(edges[row]),
            high=float(edges[row + 1]),
            count=int(count),
            confidence=float(sums[row] / count) if count else None,
            precision=float(right[row] / count) if count else None,
        )
        for row, count in enumerate(counts)
    )


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """The expected calibration error (Naeini et al., 2015)."""
    distances = (
        one.count * abs(one.confidence - one.precision)
        for one in bins
        if one.confidence is not None and one.precision is not None
    )
    return sum(distances) / max(1, sum(one.count for one in bins))


def best_temperature(scores: FloatArray, is_true: BoolArray) -> float | None:
    """What the logits must be divided by for the least log loss (Guo et al., 2017).

    Returns:
        It, between 0.05 and 20; None where there is no best one between them: where all
        detections are right or none is, or where the loss still falls at an end.
    """
    if is_true.all() or not is_true.any():
        return None
    signed = np.where(is_true, 1.0, -1.0) * _logits(scores)

    def loss(factor: float) -> float:  # convex in 1 / temperature
        return float(np.logaddexp(0.0, -factor * signed).mean())

    low, high = (1 / one for one in reversed(_TEMPERATURES))
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    factor = float(found.x)
    if not low * _OFF_THE_END < factor < high / _OFF_THE_END:
        return None
    return 1 / factor


def _logits(scores: FloatArray) -> FloatArray:
    inner = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    logits: FloatArray = np.log(inner) - np.log1p(-inner)
    return logits


def _sigmoid(logits: FloatArray) -> FloatArray:
    values: FloatArray = 1 / (1 + np.exp(-logits))
    return values
