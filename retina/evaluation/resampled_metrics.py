"""How sure each of the twelve COCO numbers is: the bootstrap of all of them.

The areas are matched one after the other, so that only one of them is in memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retina.evaluation.bootstrap import Resampled, interval, match_split, resample
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.matching import Ranking
from retina.evaluation.metrics import METRIC_NAMES
from retina.evaluation.pairs import Pairs
from retina.structures import FloatArray, IntArray

AREA_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""COCO's: all, small, medium, large."""

CONFIDENCE = 0.95
"""Of the intervals, as a rule."""

Interval = tuple[float, float]


_WORK = 100_000_000
"""Detections × resamples that take about ten seconds."""


def num_resamples_for(problem: ScoringProblem, wanted: int) -> int:
    """Fewer than wanted where there are many detections, but a hundred at least.

    The interval of a large set is narrow, and needs no third digit.
    """
    affordable = _WORK // max(1, len(problem.images))
    return min(wanted, max(100, affordable))


def resampled_metrics(
    problem: ScoringProblem, pairs: Pairs, multiplicities: IntArray
) -> dict[str, FloatArray]:
    """The twelve numbers of each resample.

    Args:
        problem: of the split.
        pairs: all that overlap by 0.5 at least.
        multiplicities: ``(S, I)`` how often each image counts.

    Returns:
        ``(S,)`` by name; -1 where a resample has no object of that size.
    """
    caps = problem.max_detections
    ranking = Ranking.of(problem)
    at = [min(cap, caps[-1]) for cap in (1, 10)]

    def of(area: int) -> Resampled:
        matches = match_split(problem, pairs, ranking, AREA_RANGES[area])
        return resample(matches, multiplicities, (*at, caps[-1]) if area == 0 else caps[-1:])

    whole = of(0)
    sizes = [of(area) for area in (1, 2, 3)]
    precision = [whole.precision.mean(axis=0), whole.precision[0], whole.precision[5]]
    values = (
        *precision,
        *(one.precision.mean(axis=0) for one in sizes),
        *whole.recall,
        *(one.recall[0] for one in sizes),
    )
    return dict(zip(METRIC_NAMES, values, strict=True))


def metric_intervals(
    values: Mapping[str, float],
    samples: Mapping[str, FloatArray],
    *,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval | None]:
    """The interval of each number; None where not every other resample has one.

    The middle of the resamples is put at the number itself. With few images it lies beside it: a
    rare class that is not drawn falls out of the mean.

    Args:
        values: the numbers.
        samples: of `resampled_metrics`.
        confidence: how much of the samples an interval holds.
    """
    return {name: _interval(values[name], one, confidence) for name, one in samples.items()}


def _interval(value: float, samples: FloatArray, confidence: float) -> Interval | None:
    if value < 0:
        return None
    found = centred_interval(value, np.where(samples < 0, np.nan, samples), confidence)
    return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))


def centred_interval(
    value: float, samples: FloatArray, confidence: float = CONFIDENCE
) -> Interval | None:
    """The percentile interval, moved so that the middle of the resamples is at the value.

    Args:
        value: as measured.
        samples: ``(S,)`` of the resamples; NaN where one tells nothing.
        confidence: how much of the samples the interval holds.

    Returns:
        None where not every other resample tells anything.
    """
    known = samples[np.isfinite(samples)]
    if 2 * len(known) <= len(samples):
        return None
    shift = value - float(np.median(known))
    low, high = interval(known, confidence)
    return low + shift, high + shift
