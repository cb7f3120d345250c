"""How sure thresholds are, and what they reach: resamples of the images.

Where few images have an object, their resamples are alike: of two objects that are found both, each
resample says that all are. There, and where no two resamples differ, the interval holds that of a
share of as many independent draws, too.

Letters: N detections, I images, C candidates, S resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.bootstrap import FEW_IMAGES, draw_multiplicities, interval
from retina.evaluation.resampled_metrics import CONFIDENCE, Interval
from retina.evaluation.thresholds.candidates import find_candidates
from retina.evaluation.thresholds.choice import Thresholds
from retina.evaluation.thresholds.outcomes import Outcomes, SplitOutcomes
from retina.evaluation.thresholds.rules import Rule
from retina.evaluation.thresholds.sufficiency import count_interval, wilson_interval
from retina.structures import FloatArray, IntArray

_BLOCK_ELEMENTS = 1 << 20
"""Candidates × resamples at a time, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class PointIntervals:
    """Of one threshold; None where nothing tells one.

    Attributes:
        threshold: those that would have been chosen on the resamples; None for one that was not
            chosen by what it counts itself, and where few images tell but one.
        precision: what the threshold that was chosen reaches on the resamples.
        recall: likewise.
        f1: likewise.
        false_alarms_per_image: likewise.
    """

    threshold: Interval | None
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None
    false_alarms_per_image: Interval | None


@dataclass(frozen=True, slots=True)
class ThresholdIntervals:
    """Of all thresholds: see `Thresholds` for what each belongs to.

    Attributes:
        num_resamples: S.
        common: of the threshold for all.
        classes: of those of the classes.
        total: of what all classes count together.
    """

    num_resamples: int
    common: PointIntervals
    classes: tuple[PointIntervals, ...]
    total: PointIntervals


def bootstrap_thresholds(
    outcomes: SplitOutcomes, chosen: Thresholds, *, num_resamples: int, seed: int
) -> ThresholdIntervals:
    """Resample the images, and see what is chosen and what is reached there.

    Args:
        outcomes: that the thresholds were chosen from.
        chosen: the thresholds.
        num_resamples: S.
        seed: of the draws.
    """
    multiplicities = draw_multiplicities(outcomes.num_images, num_resamples, seed=seed)
    pairs = tuple(zip(outcomes.classes, chosen.classes, chosen.values, strict=True))
    common_value = chosen.common.point.threshold
    assert common_value is not None
    return ThresholdIntervals(
        num_resamples=num_resamples,
        common=_intervals(
            _tallies([(outcomes.all_classes, common_value)]),
            multiplicities,
            _choices(outcomes.all_classes, chosen.rule, multiplicities),
        ),
        classes=tuple(
            _intervals(
                _tallies([(one, value)]),
                multiplicities,
                _choices(one, chosen.rule, multiplicities) if point.is_own else None,
            )
            for one, point, value in pairs
        ),
        total=_intervals(_tallies([(one, value) for one, _, value in pairs]), multiplicities, None),
    )


def _choices(outcomes: Outcomes, rule: Rule, multiplicities: IntArray) -> FloatArray:
    """The scores that would have been chosen on the resamples that have an object, ``(≤S,)``."""
    candidates = find_candidates(outcomes)
    block = max(1, _BLOCK_ELEMENTS // len(candidates.last))
    found = []
    for start in range(0, len(multiplicities), block):
        counts = candidates.counts(multiplicities[start : start + block])
        rows, _ = rule.choose(counts)
        tells = (counts.true[-1] > 0) | ((counts.num_objects > 0) & rule.may_show_nothing)
        found.append(rows[tells])
    distinct, which = np.unique(np.concatenate(found), return_inverse=True)
    thresholds = np.array([candidates.threshold(row) for row in distinct.tolist()])
    return thresholds[which] if len(which) else np.zeros(0)


def _tallies(shown: list[tuple[Outcomes, float]]) -> IntArray:
    """``(3, I)`` true positives, false alarms and objects of each image, over some classes."""
    totals = np.zeros((3, shown[0][0].num_images), dtype=np.int64)
    for outcomes, threshold in shown:
        num_shown = outcomes.num_shown(threshold)
        images, is_true = outcomes.images[:num_shown], outcomes.is_true[:num_shown]
        totals[0] += np.bincount(images[is_true], minlength=outcomes.num_images)
        totals[1] += np.bincount(images[~is_true], minlength=outcomes.num_images)
        totals[2] += outcomes.objects
    return totals


def _intervals(
    tallies: IntArray, multiplicities: IntArray, thresholds: FloatArray | None
) -> PointIntervals:
    true, false, objects = tallies @ multiplicities.T  # (S,) each
    is_few = bool(np.count_nonzero(tallies[2]) < FEW_IMAGES)
    found, wrong, every = tallies.sum(axis=1).tolist()
    # F1 is no share, but 2 s / (1 + s) of the share s of what is shown or missed that is right.
    right = _share(found, wrong + every)
    return PointIntervals(
        threshold=None if thresholds is None else _chosen(thresholds, is_few),
        precision=_wide(_ratios(true, true + false), is_few, _share(found, found + wrong)),
        recall=_wide(_ratios(true, objects), is_few, _share(found, every)),
        f1=_wide(_ratios(2 * true, true + false + objects), is_few, _f1_of(right)),
        false_alarms_per_image=_wide(
            false / tallies.shape[1],
            bool(np.count_nonzero(tallies[1]) < FEW_IMAGES),
            _rate(wrong, tallies),
        ),
    )


def _ratios(part: IntArray, whole: IntArray) -> FloatArray:
    """The ratios where there is something to divide by."""
    return np.asarray(part[whole > 0] / whole[whole > 0])


def _share(part: int, whole: int) -> Interval | None:
    return wilson_interval(part / whole, whole) if whole else None


def _f1_of(share: Interval | None) -> Interval | None:
    if share is None:
        return None
    low, high = share
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _rate(count: int, tallies: IntArray) -> Interval:
    low, high = count_interval(count)
    return low / tallies.shape[1], high / tallies.shape[1]


def _wide(samples: FloatArray, is_few: bool, independent: Interval | None) -> Interval | None:
    """The interval of the resamples, with that of independent draws where they tell too little."""
    if not len(samples) or independent is None:
        return None
    low, high = interval(samples, CONFIDENCE)
    if low < high and not is_few:
        return low, high
    return min(low, independent[0]), max(high, independent[1])


def _chosen(thresholds: FloatArray, is_few: bool) -> Interval | None:
    if not len(thresholds):
        return None
    low, high = interval(thresholds, CONFIDENCE)
    return None if low == high and is_few else (low, high)
