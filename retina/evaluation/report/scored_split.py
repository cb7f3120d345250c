"""What all analyses of a report look at: detections and objects, by label, and what overlaps what.

Letters: N detections, G annotations, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.matching import Matching, match_pairs
from retina.evaluation.pairs import Pairs, overlapping_pairs
from retina.structures import BoolArray, IntArray

IOUS = (0.5, 0.75)
"""The two thresholds of a report."""

STOPS = np.arange(101) / 100
"""The scores of the operating points."""


def stop_at(score: float) -> int:
    """The stop at or just below a score: all that counts from the score on counts there."""
    return min(max(int(score * 100 + 1e-9), 0), len(STOPS) - 1)


LEAST_OVERLAP = 0.1
"""What overlaps less has nothing to do with each other; TIDE's background."""


@dataclass(frozen=True, slots=True)
class ScoredSplit:
    """The detections and annotations of a split, in the order of its `ScoringProblem`.

    Attributes:
        problem: what the engines are given.
        num_classes: K.
        labels: ``(N,)`` of the detections.
        truth_labels: ``(G,)`` of the annotations.
        num_stops: ``(N,)`` at how many of the `STOPS`, from the first, a detection counts.
        pairs: detections and annotations of any classes that overlap by `LEAST_OVERLAP` at least.
        matchings: one for each of the `IOUS`.
    """

    problem: ScoringProblem
    num_classes: int
    labels: IntArray
    truth_labels: IntArray
    num_stops: IntArray
    pairs: Pairs
    matchings: tuple[Matching, ...]

    @classmethod
    def of(cls, metrics: CocoMetrics) -> ScoredSplit:
        """That of the detections that ``metrics`` was given; every rank must call this."""
        problem = metrics.problem()
        pairs = overlapping_pairs(problem, at_least=LEAST_OVERLAP)
        categories = metrics.ground_truth.categories
        # The engines number the categories by their original ids.
        label_of = np.argsort(np.asarray(categories.dataset_ids, dtype=np.int64))
        return cls(
            problem=problem,
            num_classes=len(categories),
            labels=label_of[problem.categories - 1],
            truth_labels=label_of[problem.truth_categories - 1],
            num_stops=np.searchsorted(STOPS, problem.scores, side="right"),
            pairs=pairs,
            matchings=match_pairs(problem, pairs, IOUS),
        )

    @property
    def is_object(self) -> BoolArray:
        """``(G,)`` whether an annotation is to be found: no crowd region."""
        return ~self.problem.truth_is_crowd

    def found_until(self, matching: Matching) -> IntArray:
        """``(G,)`` at how many stops, from the first, an object is found."""
        until = np.zeros(len(matching.detection), dtype=np.int64)
        found = np.flatnonzero(matching.detection >= 0)
        until[found] = self.num_stops[matching.detection[found]]
        return until
