"""Probable label errors, told from the detections alone.

Without the network's outputs at every anchor, only two kinds can be told with some right: a very
confident detection of another class just where an object is (a wrong class), and a very confident
detection where nothing is annotated (a missing box). "Very confident" is more than the detector is
at half of what it finds rightly, of that class. ``retina data suspects`` looks at the
detector's outputs themselves, finds more, and says how probable each is.

Letters: N detections, G annotations, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from retina.evaluation.engines import run_slices
from retina.evaluation.iou_metrics import mean_of_known
from retina.evaluation.matching import Matching
from retina.evaluation.pairs import pairs_of_boxes
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import BoolArray, FloatArray, IntArray

_SAME_PLACE = 0.75
"""The IoU of a detection that is about this object, and of no other."""

_SAME_DETECTION = 0.5
_ENOUGH = 10
"""True detections of a class that tell what is confident for it."""


@dataclass(frozen=True, slots=True)
class LabelError:
    """A label that is probably wrong.

    Attributes:
        kind: of the error.
        detection: the row of the detection that speaks against the label.
        annotation: the row of the label; None for one that is missing.
        score: of the detection.
    """

    kind: Literal["wrong class", "missing box"]
    detection: int
    annotation: int | None
    score: float


def find_label_errors(split: ScoredSplit, matching: Matching) -> tuple[LabelError, ...]:
    """The probable label errors, the most confident detection first."""
    scores = split.problem.scores
    confident = matching.is_false & (scores >= _confident_scores(split, matching)[split.labels])
    found = [*_wrong_classes(split, matching, confident), *_missing_boxes(split, confident)]
    return tuple(sorted(found, key=lambda one: (-one.score, one.detection)))


def _confident_scores(split: ScoredSplit, matching: Matching) -> FloatArray:
    """``(K,)`` the median score of the true detections; infinite where nothing is found."""
    true = matching.is_true
    scores, labels = split.problem.scores[true], split.labels[true]
    overall = float(np.median(scores)) if len(scores) else np.inf
    medians = np.full(split.num_classes, overall)
    for label in np.flatnonzero(np.bincount(labels, minlength=split.num_classes) >= _ENOUGH):
        medians[label] = np.median(scores[labels == label])
    return medians


def _wrong_classes(
    split: ScoredSplit, matching: Matching, confident: BoolArray
) -> list[LabelError]:
    scores = split.problem.scores
    finder = matching.detection
    score_of_own = np.where(finder >= 0, scores[finder] if len(scores) else 0.0, -np.inf)
    pairs = split.pairs
    pairs = pairs.at(
        (pairs.overlaps >= _SAME_PLACE)
        & confident[pairs.detections]
        & split.is_object[pairs.annotations]
        & (split.labels[pairs.detections] != split.truth_labels[pairs.annotations])
    )
    pairs = pairs.at(scores[pairs.detections] > score_of_own[pairs.annotations])
    pairs = pairs.at(np.lexsort((-scores[pairs.detections], pairs.annotations)))
    _, first = np.unique(pairs.annotations, return_index=True)
    return [
        LabelError("wrong class", detection, annotation, float(scores[detection]))
        for detection, annotation in zip(
            pairs.detections[first].tolist(), pairs.annotations[first].tolist(), strict=True
        )
    ]


def _missing_boxes(split: ScoredSplit, confident: BoolArray) -> list[LabelError]:
    problem = split.problem
    is_alone = confident.copy()
    is_alone[split.pairs.detections] = False
    rows = np.flatnonzero(is_alone)
    rows = rows[np.argsort(-problem.scores[rows], kind="stable")]
    kept = rows[~_has_better(problem.images[rows], problem.boxes[rows])]
    return [
        LabelError("missing box", row, None, float(problem.scores[row])) for row in kept.tolist()
    ]


def _has_better(images: IntArray, boxes: FloatArray) -> BoolArray:
    """Whether a box lies where one before it does."""
    nobody = np.zeros(len(images), dtype=np.bool_)
    pairs = pairs_of_boxes(images, boxes, images, boxes, nobody, at_least=_SAME_DETECTION)
    has_better = nobody.copy()
    has_better[pairs.detections[pairs.annotations < pairs.detections]] = True
    return has_better


def ap_without(split: ScoredSplit, errors: tuple[LabelError, ...]) -> float | None:
    """AP if these labels were left out: neither they nor what speaks against them is counted.

    It can only be read as "at most so much": where the detector is wrong and the label is right,
    leaving it out flatters the detector.
    """
    truth_values = np.ones(len(split.truth_labels))
    values = np.ones(len(split.labels))
    for error in errors:
        values[error.detection] = 0.0
        if error.annotation is not None:
            truth_values[error.annotation] = 0.0
    if not split.is_object.any():
        return None
    arrays = run_slices(
        split.problem, truth_values=truth_values, values=values, ranges=[(0.5, 1.5)]
    )
    return mean_of_known(arrays.precision[:, :, :, 0, -1])
