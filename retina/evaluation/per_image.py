"""What was found in each single image: ``per_image.json``.

Matches are COCO's, at IoU 0.5. The counts of all images are taken at one score threshold, that of
the highest F1 over the whole set and all classes, so that they add up to those of the set.

Letters: I images, N detections, G annotations, S segments (images and classes together).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retina.evaluation.engines import COCO_IOUS, ScoringProblem
from retina.evaluation.f1 import best_f1
from retina.evaluation.matching import Matching, match_detections, within_cap
from retina.evaluation.scored_images import ScoredImages
from retina.evaluation.segments import running_counts, segment_starts
from retina.structures import BoolArray, FloatArray, IntArray, OriginalId

COUNTED_AT = 0.5
"""The IoU of the counts."""

_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image.

    Attributes:
        image_id: as its file has it.
        file_name: below the folder of the images.
        annotations: the file or folder that describes it.
        num_objects: that are to be found; crowd regions are not.
        num_detections: of any score.
        tp: detections of at least the set's threshold that have found an object.
        fp: such detections that have found none, and lie in no crowd region.
        fn: objects that none of them has found.
        best_f1: the highest F1 that a threshold of its own would give this image; None without
            objects.
        best_f1_score: that threshold; None where nothing is found at any.
        AP: COCO's AP as if this image were the whole set: the mean over the classes that it has;
            None without objects.
    """

    image_id: OriginalId
    file_name: str
    annotations: str
    num_objects: int
    num_detections: int
    tp: int
    fp: int
    fn: int
    best_f1: float | None
    best_f1_score: float | None
    AP: float | None


@dataclass(frozen=True, slots=True)
class ImageScores:
    """All images.

    Attributes:
        score_threshold: of the counts; None where nothing is found at any, so that no detection
            counts.
        max_detections: of one class that count for AP.
        images: in the order of their ids.
    """

    score_threshold: float | None
    max_detections: int
    images: tuple[ImageScore, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``per_image.json`` holds."""
        return {
            "format_version": 1,
            "iou": COUNTED_AT,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "images": [asdict(image) for image in self.images],
        }


def score_images(problem: ScoringProblem, scored: ScoredImages) -> ImageScores:
    """Score each image by itself.

    Args:
        problem: `CocoMetrics.problem` of the split.
        scored: its images, in the order of their ids.
    """
    matchings = match_detections(problem, COCO_IOUS)
    counted = matchings[COCO_IOUS.index(COUNTED_AT)]
    objects = problem.truth_images[~problem.truth_is_crowd] - 1
    num_objects = np.bincount(objects, minlength=problem.num_images)
    images = problem.images - 1
    _, whole = best_f1(
        np.zeros(len(images), np.int64), problem.scores, counted, num_objects.sum(keepdims=True)
    )
    threshold = None if np.isnan(whole[0]) else float(whole[0])
    shown = problem.scores >= (np.inf if threshold is None else threshold)
    f1, f1_scores = best_f1(images, problem.scores, counted, num_objects)
    columns = {
        "num_objects": num_objects,
        "num_detections": np.bincount(images, minlength=problem.num_images),
        "tp": np.bincount(images[shown & counted.is_true], minlength=problem.num_images),
        "fp": np.bincount(images[shown & counted.is_false], minlength=problem.num_images),
    }
    columns["fn"] = num_objects - columns["tp"]
    numbers = {
        "best_f1": f1,
        "best_f1_score": f1_scores,
        "AP": _average_precisions(problem, matchings),
    }
    sources = [scored.sources[number] for number in scored.source_of.tolist()]
    named = {"image_id": scored.ids, "file_name": scored.file_names, "annotations": sources}
    rows: dict[str, list[Any]] = {
        **{key: list(values) for key, values in named.items()},
        **{key: values.tolist() for key, values in columns.items()},
        **{
            key: [None if np.isnan(value) else value for value in values.tolist()]
            for key, values in numbers.items()
        },
    }
    return ImageScores(
        score_threshold=threshold,
        max_detections=problem.max_detections[-1],
        images=tuple(
            ImageScore(**dict(zip(rows, values, strict=True)))
            for values in zip(*rows.values(), strict=True)
        ),
    )


def _average_precisions(problem: ScoringProblem, matchings: tuple[Matching, ...]) -> FloatArray:
    """``(I,)`` the AP of each image; NaN without objects."""
    width = problem.num_categories + 1
    is_object = ~problem.truth_is_crowd
    keys = problem.truth_images[is_object] * width + problem.truth_categories[is_object]
    segments, num_objects = np.unique(keys, return_counts=True)
    rows = within_cap(problem, problem.max_detections[-1])
    own = problem.images[rows] * width + problem.categories[rows]
    rows = rows[np.isin(own, segments)]  # a class without objects has no AP
    rows = rows[np.lexsort((-problem.scores[rows], problem.categories[rows], problem.images[rows]))]
    of_segment = np.searchsorted(segments, problem.images[rows] * width + problem.categories[rows])
    weights, first_weight = _weights(num_objects)
    total = np.zeros(len(segments))
    for matching in matchings:
        total += _segment_ap(
            of_segment,
            matching.is_true[rows],
            matching.is_ignored[rows],
            weights,
            first_weight[of_segment],
            len(segments),
        )
    images = segments // width - 1
    sums = np.bincount(images, total / len(matchings), minlength=problem.num_images)
    counts = np.bincount(images, minlength=problem.num_images)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _weights(num_objects: IntArray) -> tuple[FloatArray, IntArray]:
    """How many of the 101 recall levels the m-th object that is found brings, from m = 1 on.

    Returns:
        The numbers for each count of objects that occurs, one after the other; and for each segment
        where those of its count begin.
    """
    counts, which = np.unique(num_objects, return_inverse=True)
    tables = [
        np.bincount(np.searchsorted(np.arange(1, count + 1) / count, _LEVELS), minlength=count)
        for count in counts.tolist()
    ]
    starts = np.cumsum([0, *counts.tolist()])[:-1].astype(np.int64)
    return np.concatenate([np.zeros(0), *tables]), starts[which]


def _segment_ap(
    segments: IntArray,
    is_true: BoolArray,
    is_ignored: BoolArray,
    weights: FloatArray,
    first_weight: IntArray,
    num_segments: int,
) -> FloatArray:
    """``(S,)`` the interpolated precision of each segment, at 101 recalls; rows best score first.

    Args:
        segments: ``(N,)`` ascending.
        is_true: ``(N,)``.
        is_ignored: ``(N,)``.
        weights: see `_weights`.
        first_weight: ``(N,)`` where those of each row's segment begin.
        num_segments: S.
    """
    starts = segment_starts(segments)
    true, counted = running_counts(is_true, starts), running_counts(~is_ignored, starts)
    rows = np.flatnonzero(is_true)
    precision = true[rows] / counted[rows]
    # The highest precision from here on, within the segment: by ranks, which a step between the
    # segments keeps apart without rounding.
    values, ranks = np.unique(precision, return_inverse=True)
    steps = (segments[-1:].max(initial=0) - segments[rows]) * max(1, len(values))
    best = np.maximum.accumulate((ranks + steps)[::-1])[::-1] - steps
    share = weights[first_weight[rows] + true[rows] - 1]
    sums = np.bincount(segments[rows], values[best] * share / len(_LEVELS), num_segments)
    return sums.astype(np.float64, copy=False)  # of no row bincount makes whole numbers
