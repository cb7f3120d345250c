"""Average precision as Pascal VOC's development kit has it (Everingham et al. 2010, section 4.2).

What differs from COCO: one IoU, usually 0.5; a detection goes to the object that it overlaps most,
also where a better one has taken it already, and is false then; objects marked as difficult are not
to be found, and what goes to one of them counts neither as true nor as false. The area is that
under the whole curve (VOC 2010 and later), or the mean at eleven levels of recall (VOC 2007).

Overlaps are those of boxes whose sides are edges. VOC's own numbers mean pixels that belong to the
box; read with ``one_based: true`` they are the same boxes here, to which its ``+ 1`` is applied.

Letters: K classes, N detections, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retina.evaluation.engines import ScoringProblem, category_numbers
from retina.evaluation.iou_metrics import mean_of_known
from retina.evaluation.pairs import Pairs, pairs_of_boxes
from retina.structures import BoolArray, FloatArray, GroundTruth, IntArray

VOC_IOU = 0.5
"""The threshold of VOC's own evaluation."""


@dataclass(frozen=True, slots=True)
class VocCategory:
    """The numbers of one class; None where it has no object that is to be found.

    Attributes:
        num_ground_truth: objects that are not difficult.
        num_difficult: objects that are, and crowd regions.
        AP: the area under the whole curve, the mean over the thresholds.
        AP_11_point: of VOC 2007, likewise.
        AP_per_iou: T areas.
    """

    name: str
    dataset_id: int
    num_ground_truth: int
    num_difficult: int
    AP: float | None
    AP_11_point: float | None
    AP_per_iou: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class VocIou:
    """The means over the classes at one threshold."""

    iou: float
    AP: float | None
    AP_11_point: float | None


@dataclass(frozen=True, slots=True)
class VocMetrics:
    """The means over the classes that have an object, which VOC's users call mAP.

    Attributes:
        AP: the area under the whole curve, the mean over the thresholds.
        AP_11_point: of VOC 2007, likewise.
        per_iou: the same at each threshold.
        per_category: in the order of the labels.
    """

    AP: float | None
    AP_11_point: float | None
    per_iou: tuple[VocIou, ...]
    per_category: tuple[VocCategory, ...]

    def to_json(self) -> dict[str, Any]:
        """What stands under ``voc`` in ``metrics.json``."""
        return asdict(self)


def voc_metrics(
    truth: GroundTruth, problem: ScoringProblem, ious: Sequence[float] = (VOC_IOU,)
) -> VocMetrics:
    """Score the detections of a split.

    Args:
        truth: the ground truth; crowd regions are taken as difficult.
        problem: `CocoMetrics.problem` of the same; every detection counts, without a cap.
        ious: the thresholds.
    """
    is_difficult = problem.truth_is_crowd
    if truth.is_difficult is not None:
        is_difficult = is_difficult | truth.is_difficult
    # Equal scores by image, as everywhere here; the development kit leaves their order open.
    order = np.lexsort((problem.images, -problem.scores))
    marks = _marks(problem, is_difficult, order, ious)
    of_class = problem.categories[order]
    categories = []
    areas, levels = (np.full((len(ious), len(truth.categories)), np.nan) for _ in range(2))
    for label, number in enumerate(category_numbers(truth.categories).tolist()):
        own = problem.truth_categories == number
        num_objects = int(np.count_nonzero(own & ~is_difficult))
        rows = of_class == number
        if num_objects:
            curves = [_counts(is_true[rows], ignored[rows]) for is_true, ignored in marks]
            areas[:, label] = [_area(true, false, num_objects) for true, false in curves]
            levels[:, label] = [_eleven_points(true, false, num_objects) for true, false in curves]
        categories.append(
            VocCategory(
                name=truth.categories.distinct_names[label],
                dataset_id=truth.categories.dataset_ids[label],
                num_ground_truth=num_objects,
                num_difficult=int(np.count_nonzero(own & is_difficult)),
                AP=mean_of_known(areas[:, label]),
                AP_11_point=mean_of_known(levels[:, label]),
                AP_per_iou=tuple(mean_of_known(area) for area in areas[:, [label]]),
            )
        )
    return VocMetrics(
        AP=mean_of_known(areas),
        AP_11_point=mean_of_known(levels),
        per_iou=tuple(
            VocIou(round(iou, 9), mean_of_known(area), mean_of_known(level))
            for iou, area, level in zip(ious, areas, levels, strict=True)
        ),
        per_category=tuple(categories),
    )


def _marks(
    problem: ScoringProblem, is_difficult: BoolArray, order: IntArray, ious: Sequence[float]
) -> list[tuple[BoolArray, BoolArray]]:
    """For each threshold ``(N,)`` who has found an object and who is ignored, best score first."""
    pairs = pairs_of_boxes(
        problem.images,
        problem.boxes,
        problem.truth_images,
        problem.truth_boxes,
        np.zeros(len(is_difficult), dtype=np.bool_),  # VOC has no crowd regions
        at_least=min(ious),
    )
    is_of_class = (
        problem.categories[pairs.detections] == problem.truth_categories[pairs.annotations]
    )
    best = _nearest(pairs.at(is_of_class))
    annotation = np.full(len(problem.images), -1, dtype=np.int64)
    overlap = np.zeros(len(problem.images))
    annotation[best.detections], overlap[best.detections] = best.annotations, best.overlaps
    annotation, overlap = annotation[order], overlap[order]
    marks = []
    for iou in ious:
        reaches = (annotation >= 0) & (overlap >= iou)
        is_ignored = reaches.copy()
        is_ignored[reaches] = is_difficult[annotation[reaches]]
        claims = np.flatnonzero(reaches & ~is_ignored)
        first = np.unique(annotation[claims], return_index=True)[1]
        is_true = np.zeros(len(order), dtype=np.bool_)
        is_true[claims[first]] = True
        marks.append((is_true, is_ignored))
    return marks


def _nearest(pairs: Pairs) -> Pairs:
    """Of each detection the annotation that it overlaps most, the first of equal ones."""
    ordered = pairs.at(np.lexsort((pairs.annotations, -pairs.overlaps, pairs.detections)))
    return ordered.at(np.unique(ordered.detections, return_index=True)[1])


def _counts(is_true: BoolArray, is_ignored: BoolArray) -> tuple[IntArray, IntArray]:
    """True and false positives up to each detection."""
    return np.cumsum(is_true), np.cumsum(~is_true & ~is_ignored)


def _precision(true: IntArray, false: IntArray) -> FloatArray:
    """The highest precision at the recall of each detection or beyond."""
    precision = true / np.maximum(true + false, 1)
    best: FloatArray = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def _area(true: IntArray, false: IntArray, num_objects: int) -> float:
    """The area under the curve, as ``VOCap.m`` of 2010 sums it."""
    recall = np.concatenate([[0.0], true / num_objects])
    return float(np.sum(np.diff(recall) * _precision(true, false)))


def _eleven_points(true: IntArray, false: IntArray, num_objects: int) -> float:
    """The mean of the highest precision at the recalls 0, 0.1 … 1.

    The levels are compared as whole numbers, so that 3 of 10 objects do reach 0.3, which rounding
    decides in the development kits of Matlab and Python one way each.
    """
    at = np.searchsorted(10 * true, np.arange(11) * num_objects, side="left")
    return float(np.append(_precision(true, false), 0.0)[at].mean())
