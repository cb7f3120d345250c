"""True positives, false positives and false negatives at every score threshold.

A detection counts if its score is the threshold's at least. Matching is greedy by score, so the
counts of a threshold are those of all detections, cut there.

Letters: K classes, N detections; there are 101 stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.f1 import f1
from retina.evaluation.matching import Matching
from retina.evaluation.report.scored_split import STOPS, ScoredSplit
from retina.structures import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each class at each stop, ``(K, 101)`` int64.

    Attributes:
        tp: objects that are found.
        fp: detections that have found nothing; those in crowd regions are not among them.
        fn: objects that are not found.
    """

    tp: IntArray
    fp: IntArray
    fn: IntArray

    def f1(self) -> FloatArray:
        """``(K, 101)``, 0 where there is neither a detection nor an object."""
        return f1(self.tp, self.fp, self.tp + self.fn)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The counts over all classes from a score on."""

    score: float
    tp: int
    fp: int
    fn: int


def count_at_stops(split: ScoredSplit, matching: Matching) -> Counts:
    """The counts of all classes at one IoU."""
    tp, fp = (
        _at_stops(split.labels[rows], split.num_stops[rows], split.num_classes)
        for rows in (matching.is_true, matching.is_false)
    )
    objects = np.bincount(split.truth_labels[split.is_object], minlength=split.num_classes)
    return Counts(tp=tp, fp=fp, fn=objects[:, None] - tp)


def _at_stops(labels: IntArray, num_stops: IntArray, num_classes: int) -> IntArray:
    """``(K, 101)`` how many detections of each class count at each stop."""
    width = len(STOPS) + 1
    last = np.bincount(labels * width + num_stops, minlength=num_classes * width)
    reaching = np.cumsum(last.reshape(num_classes, width)[:, ::-1], axis=1)[:, ::-1]
    counts: IntArray = reaching[:, 1:]
    return counts


def operating_points(counts: Counts) -> tuple[OperatingPoint, ...]:
    """The counts over all classes at every stop."""
    sums = (counts.tp.sum(axis=0), counts.fp.sum(axis=0), counts.fn.sum(axis=0))
    return tuple(
        OperatingPoint(score, tp, fp, fn)
        for score, tp, fp, fn in zip(
            STOPS.tolist(), *(column.tolist() for column in sums), strict=True
        )
    )


def best_score(counts: Counts) -> float | None:
    """The highest stop with the best mean F1 of the classes that have objects.

    None if nothing is found.
    """
    has_objects = (counts.tp + counts.fn)[:, 0] > 0
    if not counts.tp.any():
        return None
    means = counts.f1()[has_objects].mean(axis=0)
    return float(STOPS[len(STOPS) - 1 - int(np.argmax(means[::-1]))])
