"""How far two detectors say the same of the same places: for an exported model and its source.

Letters: N detections of the first, M of the second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retina.evaluation.comparison.objects import IOU, Matched
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.matching import match_detections
from retina.structures import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Shift:
    """How much a quantity differs between pairs of detections, say their scores: second − first.

    Attributes:
        num_pairs: how many there are.
        median: the middle one; None without pairs.
        largest: the one farthest from 0; None without pairs.
    """

    num_pairs: int
    median: float | None
    largest: float | None

    @classmethod
    def of(cls, shifts: FloatArray) -> Shift:
        """Of the differences of all pairs."""
        if not len(shifts):
            return cls(0, None, None)
        largest = float(shifts[np.argmax(np.abs(shifts))])
        return cls(len(shifts), float(np.median(shifts)), largest)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two detectors' detections held against each other.

    Two detections are a pair if they are of one class and image and overlap by IoU 0.5 at least.

    Attributes:
        score: detections of at least this score are looked at, the first's of highest F1.
        total_first, total_second: how many there are of any score.
        num_first, num_second: how many there are.
        num_pairs: pairs in which both reach the score.
        only_first, only_second: detections with no partner of any score.
        crossed_down, crossed_up: pairs in which only the first, or only the second, reaches it.
        scores: over the pairs in which one at least reaches it.
        box_shifts: of the same pairs, how far the side of a box is moved that is moved most, in
            pixels.
        objects: how the scores of the detections differ that find the same object, at any score.
    """

    score: float
    total_first: int
    total_second: int
    num_first: int
    num_second: int
    num_pairs: int
    only_first: int
    only_second: int
    crossed_down: int
    crossed_up: int
    scores: Shift
    box_shifts: Shift
    objects: Shift

    @property
    def is_same_set(self) -> bool:
        """Whether both show the same detections above the score."""
        return not (self.only_first or self.only_second or self.crossed_down or self.crossed_up)


def agree(first: Matched, second: Matched, score: float) -> Agreement:
    """Hold the detections of two detectors against each other, those of ``score`` on."""
    ours, theirs = first.problem, second.problem
    is_high, is_high_there = ours.scores >= score, theirs.scores >= score
    partner = _partners(ours, theirs, is_high)
    back = _partners(theirs, ours, is_high_there)
    rows, rows_there = (
        np.flatnonzero(is_high & (partner >= 0)),
        np.flatnonzero(is_high_there & (back >= 0)),
    )
    pairs = np.concatenate(
        [
            np.stack([rows, partner[rows]], axis=1),
            np.stack([back[rows_there], rows_there], axis=1),
        ]
    )
    pairs = np.unique(pairs, axis=0)
    one, other = pairs.T
    shifts = np.abs(_corners(theirs.boxes[other]) - _corners(ours.boxes[one])).max(axis=1)
    return Agreement(
        score=score,
        total_first=len(ours.scores),
        total_second=len(theirs.scores),
        num_first=int(is_high.sum()),
        num_second=int(is_high_there.sum()),
        num_pairs=int((is_high[one] & is_high_there[other]).sum()),
        only_first=int((is_high & (partner < 0)).sum()),
        only_second=int((is_high_there & (back < 0)).sum()),
        crossed_down=int((is_high[one] & ~is_high_there[other]).sum()),
        crossed_up=int((~is_high[one] & is_high_there[other]).sum()),
        scores=Shift.of(theirs.scores[other] - ours.scores[one]),
        box_shifts=Shift.of(shifts),
        objects=_object_shift(first, second),
    )


def _partners(ours: ScoringProblem, theirs: ScoringProblem, which: BoolArray) -> IntArray:
    """``(N,)`` the detection of theirs that stands for each of some of ours; -1 for none.

    Ours are taken for the objects, which theirs find.
    """
    rows = np.flatnonzero(which)
    problem = replace(
        theirs,
        truth_images=ours.images[rows],
        truth_categories=ours.categories[rows],
        truth_boxes=ours.boxes[rows],
        truth_areas=np.abs(ours.boxes[rows, 2] * ours.boxes[rows, 3]),
        truth_is_crowd=np.zeros(len(rows), dtype=np.bool_),
    )
    partners = np.full(len(ours.scores), -1, dtype=np.int64)
    (matching,) = match_detections(problem, [IOU])
    partners[rows] = matching.detection
    return partners


def _corners(boxes_xywh: FloatArray) -> FloatArray:
    corners: FloatArray = np.concatenate(
        [boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1
    )
    return corners


def _object_shift(first: Matched, second: Matched) -> Shift:
    ours, theirs = first.object_scores(), second.object_scores()
    is_found = np.isfinite(ours) & np.isfinite(theirs)
    return Shift.of(theirs[is_found] - ours[is_found])
