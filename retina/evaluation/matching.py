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

from retina.evaluation.engines import ScoringProblem, match_images
from retina.structures import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Matching:
    """What became of the detections and annotations of a `ScoringProblem`, in their order there.

    Attributes:
        iou: the threshold.
        annotation: ``(N,)`` the index of the annotation that each detection has found, a crowd
            region for one that is ignored; -1 for none.
        is_ignored: ``(N,)`` whether a crowd region absorbs the detection.
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
    num_detections, num_annotations = len(problem.images), len(problem.truth_images)
    annotation = np.full((len(ious), num_detections), -1, dtype=np.int64)
    is_ignored = np.zeros((len(ious), num_detections), dtype=np.bool_)
    for entry in match_images(problem, ious=ious, max_detections=max(1, num_detections)):
        if entry is None or not entry["dtIds"]:
            continue
        rows = np.asarray(entry["dtIds"], dtype=np.int64) - 1
        annotation[:, rows] = np.asarray(entry["dtMatches"], dtype=np.int64) - 1
        is_ignored[:, rows] = np.asarray(entry["dtIgnore"], dtype=np.bool_)
    detection = np.full((len(ious), num_annotations), -1, dtype=np.int64)
    for number in range(len(ious)):
        rows = np.flatnonzero((annotation[number] >= 0) & ~is_ignored[number])
        detection[number, annotation[number, rows]] = rows
    return tuple(
        Matching(float(iou), annotation[number], is_ignored[number], detection[number])
        for number, iou in enumerate(ious)
    )
