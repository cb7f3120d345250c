"""Which detection has found which object, at one IoU threshold: what all counts are made of.

The rule is COCO's: within an image and a category the detections are taken in the order of their
scores, and each finds the free object that it overlaps most, if by the threshold at least. One that
finds none but lies in a crowd region counts neither as true nor as false. Because the order is that
of the scores, the matches above any score are those of all detections, cut there: one matching has
the counts of every operating point.

The engines tell what became of each detection as lists of Python numbers, which for 20,000 images
take a minute and several gigabytes. Here all images and categories are matched side by side: first
the best detection of each, then the second.

Letters: N detections, G annotations, P pairs, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import ScoringProblem
from retina.evaluation.pairs import Pairs, pairs_of_boxes
from retina.structures import BoolArray, FloatArray, IntArray

_LARGEST_AREA = 1e10
"""Of COCO's range of all areas."""


@dataclass(frozen=True, slots=True)
class Matching:
    """What became of the detections and annotations of a `ScoringProblem`, in their order there.

    Attributes:
        iou: the threshold.
        annotation: ``(N,)`` the index of the annotation that each detection has found, a crowd
            region for one that is ignored; -1 for none.
        is_ignored: ``(N,)`` whether a crowd region absorbs the detection; or, as COCO has it, it
            has found nothing and its area lies outside of 0 … 1e10.
        detection: ``(G,)`` the index of the detection that has found each object; -1 for none,
            and for crowd regions.
    """

    iou: float
    annotation: IntArray
    is_ignored: BoolArray
    detection: IntArray

    @property
    def is_true(self) -> BoolArray:
        """``(N,)`` whether a detection has found an object: a true positive."""
        return (self.annotation >= 0) & ~self.is_ignored

    @property
    def is_false(self) -> BoolArray:
        """``(N,)`` whether a detection has found nothing: a false positive."""
        return (self.annotation < 0) & ~self.is_ignored


def match_detections(problem: ScoringProblem, ious: Sequence[float]) -> tuple[Matching, ...]:
    """Match all detections of a split, however many an image has, at each threshold."""
    width = problem.num_categories + 1
    pairs = pairs_of_boxes(  # of the same class only, which are all that can match
        _groups(problem),
        problem.boxes,
        problem.truth_images * width + problem.truth_categories,
        problem.truth_boxes,
        problem.truth_is_crowd,
        at_least=_enough(min(ious)),
    )
    return match_pairs(problem, pairs, ious)


def match_pairs(
    problem: ScoringProblem,
    pairs: Pairs,
    ious: Sequence[float] | FloatArray,
    *,
    is_out: BoolArray | None = None,
) -> tuple[Matching, ...]:
    """The same, of pairs that are known.

    Args:
        problem: of the split.
        pairs: of any classes, all that overlap by the lowest threshold at least; a detection that
            is in none finds nothing.
        ious: the thresholds.
        is_out: ``(G,)`` objects that count as little as crowd regions do, as COCO has it for
            objects outside an area range; each absorbs one detection.
    """
    is_ignored = problem.truth_is_crowd if is_out is None else problem.truth_is_crowd | is_out
    turns = _turns(problem, _candidates(problem, pairs, min(ious)), is_ignored)
    return tuple(_matched(problem, turns, float(iou), is_ignored) for iou in ious)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order that COCO takes detections in.

    Attributes:
        ranks: ``(N,)`` of each detection in its image and category, 0 for the highest score.
        order: ``(N,)`` all of them by category, then by falling score, then by image.
    """

    ranks: IntArray
    order: IntArray

    @classmethod
    def of(cls, problem: ScoringProblem) -> Ranking:
        """That of a split's detections; equal scores of an image stay as they were given."""
        order = np.lexsort((problem.images, -problem.scores, problem.categories))
        by_group = order[np.argsort(_groups(problem)[order], kind="stable")]
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[by_group] = _positions_in_runs(_groups(problem)[by_group])
        return cls(ranks, order)


def within_cap(problem: ScoringProblem, cap: int) -> IntArray:
    """The rows of the detections that are among the best of their image and class, ascending."""
    return np.flatnonzero(Ranking.of(problem).ranks < cap)


def _matched(
    problem: ScoringProblem, turns: Sequence[Pairs], iou: float, is_ignored_truth: BoolArray
) -> Matching:
    annotation = np.full(len(problem.images), -1, dtype=np.int64)
    is_taken = np.zeros(len(problem.truth_images), dtype=np.bool_)
    for turn in turns:
        free = turn.at((turn.overlaps >= _enough(iou)) & ~is_taken[turn.annotations])
        best = free.at(_is_first(free.detections))
        annotation[best.detections] = best.annotations
        is_taken[best.annotations] = ~problem.truth_is_crowd[best.annotations]
    rows = np.flatnonzero(annotation >= 0)
    is_absorbed = is_ignored_truth[annotation[rows]]
    areas = problem.boxes[:, 2] * problem.boxes[:, 3]
    is_ignored = ((areas < 0) | (areas > _LARGEST_AREA)) & (annotation < 0)
    is_ignored[rows] = is_absorbed
    detection = np.full(len(is_taken), -1, dtype=np.int64)
    true = rows[~is_absorbed]
    detection[annotation[true]] = true
    return Matching(iou, annotation, is_ignored, detection)


def _candidates(problem: ScoringProblem, pairs: Pairs, iou: float) -> Pairs:
    is_same_class = (
        problem.categories[pairs.detections] == problem.truth_categories[pairs.annotations]
    )
    return pairs.at(is_same_class & (pairs.overlaps >= _enough(iou)))


def _enough(iou: float) -> float:
    """The overlap that reaches a threshold: pycocotools' own, for equal boxes that were rounded."""
    return min(iou, 1 - 1e-10)


def _turns(problem: ScoringProblem, pairs: Pairs, is_ignored: BoolArray) -> list[Pairs]:
    """The pairs of the best detection of every image and category, of the second, and so on.

    Those of a detection stand together, the object first that it would rather find: one that
    counts, the largest overlap, and among equal ones the last, as pycocotools chooses.
    """
    if len(pairs) == 0:
        return []
    detections = np.unique(pairs.detections)
    groups = _groups(problem)[detections]
    order = np.lexsort((-problem.scores[detections], groups))
    turn_of = np.zeros(len(problem.images), dtype=np.int64)
    turn_of[detections[order]] = _positions_in_runs(groups[order])
    turns = turn_of[pairs.detections]
    rows = np.lexsort(
        (
            -pairs.annotations,
            -pairs.overlaps,
            is_ignored[pairs.annotations],
            pairs.detections,
            turns,
        )
    )
    ends = np.cumsum(np.bincount(turns))
    return [pairs.at(rows[start:stop]) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def _groups(problem: ScoringProblem) -> IntArray:
    groups: IntArray = problem.images * (problem.num_categories + 1) + problem.categories
    return groups


def _positions_in_runs(values: IntArray) -> IntArray:
    """The position of each value in its run of equal ones: 0, 1, … and again from 0."""
    starts = np.flatnonzero(_is_first(values))
    lengths = np.diff(np.append(starts, len(values)))
    positions: IntArray = np.arange(len(values)) - np.repeat(starts, lengths)
    return positions


def _is_first(values: IntArray) -> BoolArray:
    is_first = np.ones(len(values), dtype=np.bool_)
    is_first[1:] = values[1:] != values[:-1]
    return is_first
