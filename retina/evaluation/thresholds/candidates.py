"""Every threshold that can be the best one, and what each would count.

What is shown changes only at the scores of the detections, so these are all thresholds there are.
Of them only those at which an object is found can be best by any rule of `rules`: each of the
others shows more false alarms than the one above it, and finds nothing for them.

Letters: N detections, I images, C candidates, S resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from scipy.sparse import csr_array

from retina.evaluation.thresholds.outcomes import Outcomes
from retina.structures import BoolArray, IntArray

_SHOW_NOTHING = 1.0
_MOST_DIGITS = 17  # of a float64


@dataclass(frozen=True, slots=True)
class Counts:
    """What the candidates count, in the split itself or in resamples of its images.

    Attributes:
        true: ``(C, S)`` true positives; rising with C.
        false: ``(C, S)`` false alarms; rising with C.
        num_objects: ``(S,)`` that are to be found.
        num_images: of the split, and of each resample.
    """

    true: IntArray
    false: IntArray
    num_objects: IntArray
    num_images: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Thresholds, highest first; the first shows nothing, unless a score is 1.

    Attributes:
        outcomes: the detections.
        last: ``(C,)`` the last detection that each shows, -1 for none.
    """

    outcomes: Outcomes
    last: IntArray

    def threshold(self, number: int) -> float:
        """The shortest decimal that shows what a candidate shows, and nothing else.

        It lies below the candidate's score and above the next lower one. So it can be read and
        given by hand, and the last bits of a score, which differ from machine to machine, do not
        decide.
        """
        last = int(self.last[number])
        if last < 0:
            return _SHOW_NOTHING
        scores = self.outcomes.scores
        below = scores[last + 1] if last + 1 < len(scores) else 0.0
        return _shortest_between(float(below), float(scores[last]))

    def counts(self, multiplicities: IntArray | None = None) -> Counts:
        """What each candidate counts.

        Args:
            multiplicities: ``(S, I)`` how often each image comes; None for once, with S = 1.
        """
        outcomes = self.outcomes
        if multiplicities is None:
            multiplicities = np.ones((1, outcomes.num_images), dtype=np.int64)
        # Which candidate is the first to show a detection, by image: (C, I), mostly zeros.
        first = np.searchsorted(self.last, np.arange(len(outcomes.scores)))
        counted = first < len(self.last)

        def running(rows: BoolArray) -> IntArray:
            places = (first[rows], outcomes.images[rows])
            shape = (len(self.last), outcomes.num_images)
            new = csr_array((np.ones(len(places[0]), dtype=np.int64), places), shape=shape)
            return np.cumsum(new @ multiplicities.T, axis=0)

        return Counts(
            true=running(counted & outcomes.is_true),
            false=running(counted & ~outcomes.is_true),
            num_objects=multiplicities @ outcomes.objects,
            num_images=outcomes.num_images,
        )


def find_candidates(outcomes: Outcomes) -> Candidates:
    """All thresholds that may be the best one."""
    scores = outcomes.scores
    nothing = [-1] if not len(scores) or scores[0] < _SHOW_NOTHING else []
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))  # of detections of the same score
    true_until = np.cumsum(outcomes.is_true)[ends]
    finds = np.diff(true_until, prepend=0) > 0
    last = np.concatenate([np.array(nothing, dtype=np.int64), ends[finds]])
    return Candidates(outcomes, last)


def _shortest_between(below: float, score: float) -> float:
    """The number of the fewest digits that is above ``below`` and at most ``score``."""
    exact = Decimal(repr(score))
    for digits in range(1, _MOST_DIGITS):
        found = float(exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))
        if below < found <= score:
            return found
    return score
