"""What each cell of the confusion matrix counts: which detections and objects, and at which stops.

The matrix counts; this names what it counts, so that every number of it can be looked at.

Letters: N detections, G annotations, C claims, P members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.matching import Matching
from retina.evaluation.report.confusion import BACKGROUND, Claims
from retina.evaluation.report.scored_split import STOPS, ScoredSplit
from retina.structures import IntArray


@dataclass(frozen=True, slots=True)
class CellRows:
    """The members of a cell.

    Attributes:
        detections, annotations: ``(P,)`` their rows; -1 for none.
        images: ``(P,)``.
    """

    detections: IntArray
    annotations: IntArray
    images: IntArray


@dataclass(frozen=True, slots=True)
class _Members:
    detections: IntArray  # (P,) rows; -1 for none
    annotations: IntArray  # (P,) rows; -1 for none
    num_stops: IntArray  # (P,) at how many their cell counts them
    weights: IntArray  # (P,) of two with as many stops the heavier is shown first


class CellMembers:
    """The members of all cells at one IoU.

    Args:
        split: the detections and objects.
        matching: at that IoU.
        claims: likewise.
    """

    def __init__(self, split: ScoredSplit, matching: Matching, claims: Claims) -> None:
        self._split, self._matching, self._claims = split, matching, claims
        self._until = split.found_until(matching)
        self._by_detection = np.argsort(claims.detections, kind="stable")
        self._by_annotation = np.argsort(claims.annotations, kind="stable")
        parts = (self._confused(), self._alarms(), self._missed(), self._found())
        detections, annotations, num_stops, weights = (
            np.concatenate([getattr(part, name) for part in parts]) for name in _Members.__slots__
        )
        # The last row is for -1.
        truth = np.append(split.truth_labels, BACKGROUND)[annotations]
        detected = np.append(split.labels, BACKGROUND)[detections]
        images = np.where(
            annotations >= 0,
            np.append(split.problem.truth_images, 0)[annotations],
            np.append(split.problem.images, 0)[detections],
        )
        self._width = split.num_classes + 1
        cells = self._number(truth, detected)
        order = np.lexsort((-weights, -num_stops, cells))
        self._cells = cells[order]
        self._rows = CellRows(detections[order], annotations[order], images[order])

    def _number(self, truth: IntArray, detected: IntArray) -> IntArray:
        numbers: IntArray = (truth - BACKGROUND) * self._width + detected - BACKGROUND
        return numbers

    def of(self, truth: int, detected: int) -> CellRows:
        """The members of the cell with these labels.

        What the cell counts at most stops comes first; then the highest scores, of missed objects
        the largest. So the first ones are those that it counts wherever the slider stands.
        """
        number = self._number(np.array(truth), np.array(detected))
        first, last = np.searchsorted(self._cells, [number, number + 1])
        rows = self._rows
        return CellRows(
            rows.detections[first:last], rows.annotations[first:last], rows.images[first:last]
        )

    def stops(self, detection: int, annotation: int) -> tuple[int, ...]:
        """Where a member counts: the first and the last stop of each run."""
        is_at = np.zeros(len(STOPS), dtype=np.bool_)
        if detection >= 0 and annotation >= 0 and self._matching.annotation[detection] < 0:
            is_at[self._claimed(detection=detection, annotation=annotation)] = True
        elif detection >= 0:
            is_at[: self._split.num_stops[detection]] = True
            is_at[self._claimed(detection=detection)] = False
        else:
            is_at[self._until[annotation] :] = True
            is_at[self._claimed(annotation=annotation)] = False
        changes = np.flatnonzero(np.diff(np.concatenate([[0], is_at.astype(np.int8), [0]])))
        changes[1::2] -= 1
        return tuple(changes.tolist())

    def _claimed(self, *, detection: int = -1, annotation: int = -1) -> IntArray:
        """The stops at which a detection takes some object, or an object is taken."""
        claims = self._claims
        if detection < 0:
            order, keys, key = self._by_annotation, claims.annotations, annotation
        else:
            order, keys, key = self._by_detection, claims.detections, detection
        first, last = np.searchsorted(keys, [key, key + 1], sorter=order)
        rows = order[first:last]
        if detection >= 0 and annotation >= 0:
            rows = rows[claims.annotations[rows] == annotation]
        return claims.stops[rows]

    def _confused(self) -> _Members:
        claims = self._claims
        pairs = np.stack([claims.detections, claims.annotations], axis=1)
        pairs, counts = np.unique(pairs, axis=0, return_counts=True)
        return _Members(pairs[:, 0], pairs[:, 1], counts, self._split.num_stops[pairs[:, 0]])

    def _alarms(self) -> _Members:
        stops = self._split.num_stops
        unclaimed = stops - np.bincount(self._claims.detections, minlength=len(stops))
        rows = np.flatnonzero(self._matching.is_false & (unclaimed > 0))
        return _Members(rows, np.full(len(rows), -1), unclaimed[rows], stops[rows])

    def _missed(self) -> _Members:
        split = self._split
        claimed = np.bincount(self._claims.annotations, minlength=len(self._until))
        num_stops = len(STOPS) - self._until - claimed
        rows = np.flatnonzero(split.is_object & (num_stops > 0))
        sizes = np.argsort(np.argsort(split.problem.truth_areas[rows], kind="stable"))
        return _Members(np.full(len(rows), -1), rows, num_stops[rows], sizes)

    def _found(self) -> _Members:
        stops = self._split.num_stops
        rows = np.flatnonzero(self._matching.is_true & (stops > 0))
        return _Members(rows, self._matching.annotation[rows], stops[rows], stops[rows])
