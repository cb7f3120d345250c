"""The confusion matrix with background at every score threshold, equal to the counts.

The diagonal is the true positives. Among what is left at a threshold, the false detections and the
objects that are not found, a detection takes the object of another class that it overlaps most, by
the IoU threshold at least, and an object goes to the highest score that takes it. All else is
background: a false alarm, or a missed object. So each row adds up to the objects of a class, and
each column to its detections.

Letters: N detections, G annotations, C claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.matching import Matching
from retina.evaluation.report.operating_points import Counts
from retina.evaluation.report.scored_split import STOPS, ScoredSplit
from retina.structures import BoolArray, IntArray

BACKGROUND = -1
"""The label of no object, or of no detection."""

MOST_CLASSES = 100
"""With more, only the costliest confusions are kept."""

_MOST_CONFUSIONS = 50


@dataclass(frozen=True, slots=True)
class Claims:
    """Objects taken for another class, at each stop.

    Attributes:
        stops: ``(C,)`` the number of the stop.
        detections: ``(C,)`` which detection takes
        annotations: ``(C,)`` which object.
    """

    stops: IntArray
    detections: IntArray
    annotations: IntArray

    def at(self, stop: int) -> tuple[IntArray, IntArray]:
        """The detections and objects of one stop."""
        rows = self.stops == stop
        return self.detections[rows], self.annotations[rows]


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """How many objects of one class were detected as another, at every stop.

    Attributes:
        truth: the label of the objects; `BACKGROUND` for false alarms.
        detected: the label of the detections; `BACKGROUND` for missed objects.
        counts: 101 of them.
    """

    truth: int
    detected: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """The cells that are above 0 somewhere.

    With more than `MOST_CLASSES` classes these are only the costliest confusions of two classes:
    those with the highest sum over all stops.

    Attributes:
        cells: row by row.
        num_left_out: confusions of two classes that are not kept.
    """

    cells: tuple[ConfusionCell, ...]
    num_left_out: int


def find_claims(split: ScoredSplit, matching: Matching) -> Claims:
    """Which detection takes which object of another class, at every stop."""
    pairs = split.pairs
    is_candidate = (
        (pairs.overlaps >= matching.iou)
        & matching.is_false[pairs.detections]
        & split.is_object[pairs.annotations]
        & (split.labels[pairs.detections] != split.truth_labels[pairs.annotations])
    )
    pairs = pairs.at(is_candidate)
    best_first = np.lexsort((pairs.annotations, -pairs.overlaps, pairs.detections))
    pairs = pairs.at(best_first)
    starts = split.found_until(matching)[pairs.annotations]  # not found from this stop on
    ends = split.num_stops[pairs.detections]
    parts = []
    for stop in range(len(STOPS)):
        now = pairs.at((starts <= stop) & (stop < ends))
        chosen = now.at(_first_of_each(now.detections))
        scores = split.problem.scores[chosen.detections]
        chosen = chosen.at(np.lexsort((chosen.detections, -scores, chosen.annotations)))
        chosen = chosen.at(_first_of_each(chosen.annotations))
        parts.append((np.full(len(chosen), stop), chosen.detections, chosen.annotations))
    return Claims(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _first_of_each(sorted_values: IntArray) -> BoolArray:
    is_first = np.ones(len(sorted_values), dtype=np.bool_)
    is_first[1:] = sorted_values[1:] != sorted_values[:-1]
    return is_first


def confusion_matrix(split: ScoredSplit, counts: Counts, claims: Claims) -> Confusion:
    """The matrix of one IoU, from the counts and the claims there."""
    truth = split.truth_labels[claims.annotations]
    detected = split.labels[claims.detections]
    numbers, of_claim = np.unique(truth * split.num_classes + detected, return_inverse=True)
    table = np.zeros((len(numbers), len(STOPS)), dtype=np.int64)
    np.add.at(table, (of_claim, claims.stops), 1)
    rows, columns = np.divmod(numbers, max(1, split.num_classes))
    if split.num_classes > MOST_CLASSES:
        costliest = np.sort(np.argsort(-table.sum(axis=1), kind="stable")[:_MOST_CONFUSIONS])
        cells = _cells(rows[costliest], columns[costliest], table[costliest])
        return Confusion(tuple(cells), len(numbers) - len(cells))
    labels, background = np.arange(split.num_classes), np.full(split.num_classes, BACKGROUND)
    missed, false_alarms = counts.fn.copy(), counts.fp.copy()
    np.subtract.at(missed, rows, table)
    np.subtract.at(false_alarms, columns, table)
    cells = [
        *_cells(labels, labels, counts.tp),
        *_cells(rows, columns, table),
        *_cells(labels, background, missed),
        *_cells(background, labels, false_alarms),
    ]
    return Confusion(tuple(sorted(cells, key=lambda cell: (cell.truth, cell.detected))), 0)


def _cells(truth: IntArray, detected: IntArray, table: IntArray) -> list[ConfusionCell]:
    return [
        ConfusionCell(row, column, tuple(counts))
        for row, column, counts in zip(
            truth.tolist(), detected.tolist(), table.tolist(), strict=True
        )
        if any(counts)
    ]
