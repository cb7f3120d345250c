"""AP and AR by what the objects are like: their size, their aspect ratio, how crowded they are.

Each slice is scored as COCO scores an area range: objects outside it are ignored with the
detections that have found them, and so are false detections that are not like the slice. A false
detection counts where an object like it would: by its own size and aspect ratio, and by the objects
that it overlaps.

Letters: N detections, G annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import run_slices
from retina.evaluation.iou_metrics import mean_of_known
from retina.evaluation.pairs import pairs_of_boxes
from retina.evaluation.report.scored_split import LEAST_OVERLAP, ScoredSplit
from retina.structures import BoolArray, FloatArray, IntArray

_LARGEST = 1e10

_SIZES = (
    ("under 16 px", 0.0, 16.0**2),
    ("16 – 32 px", 16.0**2, 32.0**2),
    ("32 – 64 px", 32.0**2, 64.0**2),
    ("64 – 96 px", 64.0**2, 96.0**2),
    ("96 – 192 px", 96.0**2, 192.0**2),
    ("over 192 px", 192.0**2, _LARGEST),
)
"""By the root of the annotated area, COCO's 32 and 96 among the edges."""

_ASPECTS = (
    ("under 1:3", 0.0, 1 / 3),
    ("1:3 – 2:3", 1 / 3, 2 / 3),
    ("2:3 – 3:2", 2 / 3, 3 / 2),
    ("3:2 – 3:1", 3 / 2, 3.0),
    ("over 3:1", 3.0, _LARGEST),
)
"""Width to height."""

_NEIGHBOURS = (
    ("no neighbour", 0.0, 0.0),
    ("1 neighbour", 1.0, 1.0),
    ("2 neighbours", 2.0, 2.0),
    ("3 or more neighbours", 3.0, _LARGEST),
)
"""Other objects of any class that overlap by an IoU of 0.1 at least."""


@dataclass(frozen=True, slots=True)
class SliceScore:
    """The score of some of the objects; None where there is none of them."""

    name: str
    num_objects: int
    AP: float | None
    AR: float | None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The scores by each property, from its lowest values to its highest."""

    size: tuple[SliceScore, ...]
    aspect_ratio: tuple[SliceScore, ...]
    crowding: tuple[SliceScore, ...]


def break_down(split: ScoredSplit) -> Breakdown:
    """Score the slices."""
    problem = split.problem
    areas = problem.boxes[:, 2] * problem.boxes[:, 3]
    return Breakdown(
        size=score_slices(split, _SIZES, problem.truth_areas, areas),
        aspect_ratio=score_slices(
            split, _ASPECTS, _aspects(problem.truth_boxes), _aspects(problem.boxes)
        ),
        crowding=score_slices(split, _NEIGHBOURS, *neighbours(split)),
    )


def score_slices(
    split: ScoredSplit,
    slices: Sequence[tuple[str, float, float]],
    truth_values: FloatArray,
    values: FloatArray,
) -> tuple[SliceScore, ...]:
    """Score each slice; those without objects say so.

    Args:
        split: what was detected.
        slices: name, lowest and highest value, both within.
        truth_values: ``(G,)`` the property of each annotation.
        values: ``(N,)`` the property of each detection.
    """
    ranges = _apart([(low, high) for _, low, high in slices])
    of_objects = truth_values[split.is_object]
    if len(of_objects) == 0:
        return tuple(SliceScore(name, 0, None, None) for name, _, _ in slices)
    arrays = run_slices(split.problem, truth_values=truth_values, values=values, ranges=ranges)
    return tuple(
        SliceScore(
            name=name,
            num_objects=int(np.count_nonzero((of_objects >= low) & (of_objects <= high))),
            AP=mean_of_known(arrays.precision[:, :, :, row, -1]),
            AR=mean_of_known(arrays.recall[:, :, row, -1]),
        )
        for row, ((name, _, _), (low, high)) in enumerate(zip(slices, ranges, strict=True))
    )


def _apart(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same, each without its highest value where the next one begins with that."""
    starts = {low for low, high in ranges if low < high}
    return [
        (low, float(np.nextafter(high, low)) if high in starts and low < high else high)
        for low, high in ranges
    ]


def _aspects(boxes: FloatArray) -> FloatArray:
    tiny = 1 / _LARGEST
    aspects: FloatArray = np.maximum(boxes[:, 2], tiny) / np.maximum(boxes[:, 3], tiny)
    return np.clip(aspects, 0.0, _LARGEST)


def neighbours(split: ScoredSplit) -> tuple[FloatArray, FloatArray]:
    """``(G,)`` and ``(N,)``: how many objects overlap an object, or a detection beside its own.

    The object of a detection is the one that it overlaps most.
    """
    problem, is_object = split.problem, split.is_object
    rows = np.flatnonzero(is_object)
    images, boxes = problem.truth_images[rows], problem.truth_boxes[rows]
    own = pairs_of_boxes(
        images, boxes, images, boxes, np.zeros(len(rows), np.bool_), at_least=LEAST_OVERLAP
    )
    of_truth = np.zeros(len(is_object))
    of_truth[rows] = _num_pairs(own.detections, own.detections != own.annotations, len(rows))
    counted = is_object[split.pairs.annotations]
    of_detection = _num_pairs(split.pairs.detections, counted, len(problem.images)) - 1
    return of_truth, np.maximum(of_detection, 0).astype(np.float64)


def _num_pairs(of: IntArray, counted: BoolArray, length: int) -> IntArray:
    counts: IntArray = np.bincount(of[counted], minlength=length)
    return counts
