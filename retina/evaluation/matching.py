"""Which detection has found which object, at one IoU threshold: what all counts are made of.

The rule is COCO's: within an image and a category the detections are taken in the order of their
scores, and each finds the free object that it overlaps most, if by the threshold at least. One that
finds none but lies in a crowd region counts neither as true nor as false. Because the order is that
of the scores, the matches above any score are those of all detections, cut there: one matching has
the counts of every operating point.

Letters: N detections, G annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import ScoringProblem
from retina.evaluation.overlaps import Pairs, overlapping_pairs
from retina.structures import BoolArray, IntArray

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


def within_cap(problem: ScoringProblem, cap: int) -> IntArray:
    """The rows of the detections that are among the best of their image and class, ascending."""
    order = np.lexsort((-problem.scores, problem.categories, problem.images))
    images, categories = problem.images[order], problem.categories[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = (np.diff(images) != 0) | (np.diff(categories) != 0)
    starts = np.flatnonzero(is_first)
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.sort(order[place < cap])


def match_detections(problem: ScoringProblem, ious: Sequence[float]) -> tuple[Matching, ...]:
    """Match all detections of a split, however many an image has, at each threshold."""
    if not ious:
        return ()
    least = min(map(_reached_at, ious))
    pairs = overlapping_pairs(problem, at_least=least, over_own_area=problem.truth_is_crowd)
    pairs = pairs.best_first()
    by_rank = np.argsort(-problem.scores, kind="stable")
    return tuple(_match(problem, pairs, by_rank, float(iou)) for iou in ious)


def _reached_at(iou: float) -> float:
    return min(iou, 1 - 1e-10)  # pycocotools' own: else rounding would keep an equal box from IoU 1


def _match(problem: ScoringProblem, pairs: Pairs, by_rank: IntArray, iou: float) -> Matching:
    annotation = np.full(len(problem.images), -1, dtype=np.int64)
    reaching = pairs.at(pairs.overlaps >= _reached_at(iou))
    in_crowd = problem.truth_is_crowd[reaching.annotations]
    detection = _settle(reaching.at(~in_crowd), by_rank, len(problem.truth_images))
    objects = np.flatnonzero(detection >= 0)
    annotation[detection[objects]] = objects
    crowds = reaching.at(in_crowd & (annotation[reaching.detections] < 0))
    ignored, first = np.unique(crowds.detections, return_index=True)
    annotation[ignored] = crowds.annotations[first]
    areas = problem.boxes[:, 2] * problem.boxes[:, 3]
    is_ignored = ((areas < 0) | (areas > _LARGEST_AREA)) & (annotation < 0)
    is_ignored[ignored] = True
    return Matching(iou, annotation, is_ignored, detection)


def _settle(pairs: Pairs, by_rank: IntArray, num_annotations: int) -> IntArray:
    """The detection that each object is given to, -1 for none.

    In turn, the best detection first, each takes the free object that it overlaps most. The same
    comes out if all ask at once for the object that they want most, an object stays with the best
    of those that ask, and the others ask for their next one (Gale and Shapley 1962): all objects
    prefer the same detections. That takes few rounds, each over whole arrays.

    Args:
        pairs: of detections and objects, of each detection the object that it wants most first.
        by_rank: ``(N,)`` all detections, the best score first.
        num_annotations: G.
    """
    nobody = len(by_rank)
    ranks = np.empty(nobody, dtype=np.int64)
    ranks[by_rank] = np.arange(nobody)
    holder = np.full(num_annotations, nobody, dtype=np.int64)  # the rank of whom an object is with
    asking, place = np.unique(pairs.detections, return_index=True)
    next_pair = np.zeros(len(ranks), dtype=np.int64)
    next_pair[asking] = place
    end = np.zeros(len(ranks), dtype=np.int64)
    end[asking] = np.append(place[1:], len(pairs.detections))
    while len(asking):
        wanted = pairs.annotations[next_pair[asking]]
        objects = np.unique(wanted)
        before = holder[objects]
        np.minimum.at(holder, wanted, ranks[asking])
        refused = asking[holder[wanted] != ranks[asking]]
        sent_away = by_rank[before[(before != holder[objects]) & (before != nobody)]]
        asking = np.concatenate([refused, sent_away])
        next_pair[asking] += 1
        asking = asking[next_pair[asking] < end[asking]]
    return np.append(by_rank, -1)[holder]
