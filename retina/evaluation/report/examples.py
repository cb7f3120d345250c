"""Which detections and objects a report shows, and what it says of each.

All are chosen at one IoU and one score, the suggested ones; the members of a cell of the confusion
matrix are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.matching import Matching
from retina.evaluation.report.label_errors import LabelError
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import BoolArray, IntArray

_LEAST_OF_MISPLACED = 0.25
"""A detection that overlaps its object by less may be about something else."""

_MOST_OF_AN_IMAGE = 3


@dataclass(frozen=True, slots=True)
class Example:
    """Something to look at in an image.

    Attributes:
        image: its number, from 1.
        detection: the row of a detection, or None.
        annotation: the row of an annotation, or None.
        note: what there is to see.
        iou: how much the two overlap; None where that is not the point.
        f1: of the image; None where that is not the point.
        errors: of the image, likewise.
    """

    image: int
    detection: int | None
    annotation: int | None
    note: str
    iou: float | None = None
    f1: float | None = None
    errors: int | None = None


class ExampleChoice:
    """Chooses examples among what a detector did.

    Args:
        split: the detections and objects.
        matching: at the IoU of the examples.
        names: of the classes.
        score: from which on a detection counts.
    """

    def __init__(
        self, split: ScoredSplit, matching: Matching, names: tuple[str, ...], score: float
    ) -> None:
        self._split, self._matching, self._names, self._score = split, matching, names, score
        scores = split.problem.scores
        self._counts = scores >= score
        self._is_missed = split.is_object.copy()
        found = np.flatnonzero(matching.detection >= 0)
        self._is_missed[found] = ~self._counts[matching.detection[found]]

    def worst_images(self, most: int) -> tuple[Example, ...]:
        """Those with most false alarms and missed objects."""
        problem, length = self._split.problem, self._split.problem.num_images + 1
        false = np.bincount(problem.images[self._is_false_alarm], minlength=length)
        missed = np.bincount(problem.truth_images[self._is_missed], minlength=length)
        objects = np.bincount(problem.truth_images[self._split.is_object], minlength=length)
        errors, found = false + missed, objects - missed
        f1 = 2 * found / np.maximum(2 * found + errors, 1)
        order = np.lexsort((f1, -errors))[:most]
        return tuple(
            Example(
                image,
                None,
                None,
                f"{_plural(false[image], 'false alarm')}, {missed[image]} of "
                f"{_plural(objects[image], 'object')} missed",
                f1=float(f1[image]),
                errors=int(errors[image]),
            )
            for image in order.tolist()
            if errors[image]
        )

    @property
    def _is_false_alarm(self) -> BoolArray:
        return self._matching.is_false & self._counts

    def false_alarms(self, most: int) -> tuple[Example, ...]:
        """The most confident ones."""
        rows = np.flatnonzero(self._is_false_alarm)
        rows = rows[np.argsort(-self._split.problem.scores[rows], kind="stable")]
        chosen = self._spread(rows, self._split.problem.images, most)
        return tuple(self.false_alarm(row) for row in chosen)

    def false_alarm(self, row: int) -> Example:
        """A detection that has found nothing, and what it overlaps."""
        pairs = self._split.pairs
        first, last = np.searchsorted(pairs.detections, [row, row + 1])
        where = "where nothing is annotated"
        if last > first:
            at = first + int(np.argmax(pairs.overlaps[first:last]))
            label = self._split.truth_labels[pairs.annotations[at]]
            where = f"over {self._names[label]}, IoU {pairs.overlaps[at]:.2f}"
        note = f"{self._detection_note(row)}, {where}"
        return Example(int(self._split.problem.images[row]), row, None, note)

    def missed(self, most: int) -> tuple[Example, ...]:
        """The largest objects that are not found."""
        rows = np.flatnonzero(self._is_missed)
        areas = self._split.problem.truth_areas[rows]
        rows = rows[np.argsort(-areas, kind="stable")]
        chosen = self._spread(rows, self._split.problem.truth_images, most)
        return tuple(self.missed_object(row) for row in chosen)

    def missed_object(self, row: int) -> Example:
        """An object that is not found, and the score that would find it."""
        problem = self._split.problem
        _, _, width, height = problem.truth_boxes[row]
        finder = self._matching.detection[row]
        how = "found at no score"
        if finder >= 0:
            how = f"found only at score {problem.scores[finder]:.2f}"
        name = self._names[self._split.truth_labels[row]]
        note = f"{name}, {width:.0f} × {height:.0f} px, {how}"
        return Example(int(problem.truth_images[row]), None, row, note)

    def badly_placed(self, most: int) -> tuple[Example, ...]:
        """Detections of the right class that fit their object least."""
        split, matching = self._split, self._matching
        pairs = split.pairs
        is_own = matching.annotation[pairs.detections] == pairs.annotations
        is_near = (
            matching.is_false[pairs.detections]
            & self._is_missed[pairs.annotations]
            & (pairs.overlaps >= _LEAST_OF_MISPLACED)
            & (split.labels[pairs.detections] == split.truth_labels[pairs.annotations])
        )
        pairs = pairs.at(
            (is_own | is_near) & self._counts[pairs.detections] & split.is_object[pairs.annotations]
        )
        # The best detection of each object, then the worst of these.
        pairs = pairs.at(np.lexsort((-pairs.overlaps, pairs.annotations)))
        pairs = pairs.at(np.unique(pairs.annotations, return_index=True)[1])
        pairs = pairs.at(np.argsort(pairs.overlaps, kind="stable"))
        kept = self._spread(np.arange(len(pairs)), split.problem.images[pairs.detections], most)
        return tuple(
            Example(
                int(split.problem.images[pairs.detections[at]]),
                int(pairs.detections[at]),
                int(pairs.annotations[at]),
                f"{self._detection_note(int(pairs.detections[at]))}, IoU {pairs.overlaps[at]:.2f}",
                iou=float(pairs.overlaps[at]),
            )
            for at in kept
        )

    def label_error(self, error: LabelError) -> Example:
        """What speaks against a label."""
        against = "where nothing is annotated"
        if error.annotation is not None:
            name = self._names[self._split.truth_labels[error.annotation]]
            against = f"annotated as {name}"
        image = int(self._split.problem.images[error.detection])
        note = f"{error.kind}: {self._detection_note(error.detection)}, {against}"
        return Example(image, error.detection, error.annotation, note)

    def of_cell(self, detection: int, annotation: int) -> Example:
        """A member of a cell of the confusion matrix: the rows of both, -1 for none."""
        if annotation < 0:
            return self.false_alarm(detection)
        if detection < 0:
            return self.missed_object(annotation)
        if self._matching.annotation[detection] == annotation:
            return self._found(detection)
        return self._confused(detection, annotation)

    def _confused(self, row: int, annotation: int) -> Example:
        name = self._names[self._split.truth_labels[annotation]]
        note = f"{self._detection_note(row)}, annotated as {name}"
        return Example(int(self._split.problem.images[row]), row, annotation, note)

    def _found(self, row: int) -> Example:
        annotation = int(self._matching.annotation[row])
        image = int(self._split.problem.images[row])
        return Example(image, row, annotation, self._detection_note(row))

    def _detection_note(self, row: int) -> str:
        return f"{self._names[self._split.labels[row]]} {self._split.problem.scores[row]:.2f}"

    def _spread(self, rows: IntArray, images: IntArray, most: int) -> list[int]:
        """The first rows, but only a few of one image."""
        kept: list[int] = []
        seen: dict[int, int] = {}
        for row in rows.tolist():
            image = int(images[row])
            seen[image] = seen.get(image, 0) + 1
            if seen[image] <= _MOST_OF_AN_IMAGE:
                kept.append(row)
            if len(kept) == most:
                break
        return kept


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
