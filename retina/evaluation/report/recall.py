"""COCO's average recall against the objects of an image, and against the cap of detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import run_slices
from retina.evaluation.iou_metrics import mean_of_known
from retina.evaluation.report.scored_split import ScoredSplit

_OBJECTS = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, None))
_CAPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LARGEST = 1e10


@dataclass(frozen=True, slots=True)
class RecallByObjects:
    """The recall in the images with ``low`` to ``high`` objects; ``high`` None for no limit."""

    low: int
    high: int | None
    num_images: int
    num_objects: int
    recall: float | None


@dataclass(frozen=True, slots=True)
class RecallByCap:
    """The recall when so many detections of a class count in an image."""

    max_detections: int
    recall: float | None


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Both; images without objects are in none of the first."""

    by_objects_per_image: tuple[RecallByObjects, ...]
    by_cap: tuple[RecallByCap, ...]


def recall_report(split: ScoredSplit) -> RecallReport:
    """Average recall over IoU 0.50:0.95 and the classes that have objects."""
    problem = split.problem
    per_image = np.bincount(
        problem.truth_images[split.is_object], minlength=problem.num_images + 1
    ).astype(np.float64)
    if not per_image.any():
        return RecallReport((), ())
    most = problem.max_detections[-1]
    caps = (*(cap for cap in _CAPS if cap < most), most)
    of_truth, of_detections = per_image[problem.truth_images], per_image[problem.images]
    arrays = run_slices(
        problem,
        truth_values=of_truth,
        values=of_detections,
        ranges=[(low, high or _LARGEST) for low, high in _OBJECTS],
    )
    # Apart: with 1,203 classes, the arrays of all caps and all ranges would be gigabytes.
    by_cap = run_slices(
        problem,
        truth_values=of_truth,
        values=of_detections,
        ranges=[(0.0, _LARGEST)],
        caps=caps,
    )
    rows = []
    for row, (low, high) in enumerate(_OBJECTS):
        chosen = per_image[(per_image >= low) & (per_image <= (high or _LARGEST))]
        if len(chosen):
            recall = mean_of_known(arrays.recall[:, :, row, -1])
            rows.append(RecallByObjects(low, high, len(chosen), int(chosen.sum()), recall))
    return RecallReport(
        by_objects_per_image=tuple(rows),
        by_cap=tuple(
            RecallByCap(cap, mean_of_known(by_cap.recall[:, :, 0, at]))
            for at, cap in enumerate(caps)
        ),
    )
