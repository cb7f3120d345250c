"""LVIS's metric for federated data sets (Gupta, Dollár, Girshick 2019): hotcoco's engine.

Not every class was looked for in every image. A detection counts in an image of which its class has
an annotation, or is known to be absent; elsewhere it is passed over. Where not every object of a
class is annotated, a detection that has found none is passed over too. The best 300 detections of
an image count, over all its classes.

Letters: T IoU thresholds, R recall levels, K classes, A area ranges (all, small, medium, large).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import hotcoco
import numpy as np

from retina.errors import UserError
from retina.evaluation.engines import COCO_IOUS, ScoringProblem, category_numbers
from retina.evaluation.iou_metrics import mean_of_known
from retina.structures import Federation, FloatArray, GroundTruth, IntArray

LVIS_MAX_DETECTIONS = 300
"""Detections of one image that count, whatever their classes."""

_AREAS = {"s": 1, "m": 2, "l": 3}


@dataclass(frozen=True, slots=True)
class LvisCategory:
    """The numbers of one class; None where it has no object.

    Attributes:
        frequency: ``r`` (rare), ``c`` (common), ``f`` (frequent); empty where it is not known.
        AP_per_iou: T of them.
    """

    name: str
    dataset_id: int
    frequency: str
    num_ground_truth: int
    AP: float | None
    AP_per_iou: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class LvisIou:
    """The mean over the classes at one threshold."""

    iou: float
    AP: float | None


@dataclass(frozen=True, slots=True)
class LvisMetrics:
    """LVIS's thirteen numbers; None where a group has no object, or an IoU was not asked for.

    Attributes:
        APr, APc, APf: of the rare, common and frequent classes.
        max_detections: the cap on the detections of an image.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    APr: float | None
    APc: float | None
    APf: float | None
    AR: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    max_detections: int
    per_iou: tuple[LvisIou, ...]
    per_category: tuple[LvisCategory, ...]

    def to_json(self) -> dict[str, Any]:
        """What stands under ``lvis`` in ``metrics.json``."""
        return asdict(self)


def lvis_metrics(
    truth: GroundTruth,
    problem: ScoringProblem,
    *,
    ious: Sequence[float] = COCO_IOUS,
    max_detections: int = LVIS_MAX_DETECTIONS,
) -> LvisMetrics:
    """Score the detections of a split.

    Args:
        truth: the ground truth, with a federation.
        problem: `CocoMetrics.problem` of the same.
        ious: the thresholds whose mean is AP.
        max_detections: of an image that count.

    Raises:
        UserError: the ground truth does not say which classes were looked for.
    """
    federation = truth.federation
    if federation is None:
        raise UserError(
            "--metrics lvis: the annotations do not say which classes were looked for in which "
            "image (images[].neg_category_ids and not_exhaustive_category_ids): score against "
            "LVIS's own annotation file, or take --metrics coco"
        )
    precision, recall = _accumulated(truth, federation, problem, ious, max_detections)
    frequencies = np.array(federation.frequencies)
    whole = precision[..., 0]
    at = {iou: np.isclose(ious, iou, rtol=0, atol=1e-9) for iou in (0.5, 0.75)}
    counts = np.bincount(truth.category_labels, minlength=len(frequencies))
    names, ids = truth.categories.distinct_names, truth.categories.dataset_ids
    return LvisMetrics(
        AP=mean_of_known(whole),
        AP50=mean_of_known(whole[at[0.5]]),
        AP75=mean_of_known(whole[at[0.75]]),
        **{f"AP{size}": mean_of_known(precision[..., area]) for size, area in _AREAS.items()},
        **{f"AP{group}": mean_of_known(whole[:, :, frequencies == group]) for group in "rcf"},
        AR=mean_of_known(recall[..., 0]),
        **{f"AR{size}": mean_of_known(recall[..., area]) for size, area in _AREAS.items()},
        max_detections=max_detections,
        per_iou=tuple(
            LvisIou(round(iou, 9), mean_of_known(one)) for iou, one in zip(ious, whole, strict=True)
        ),
        per_category=tuple(
            LvisCategory(
                name=names[label],
                dataset_id=ids[label],
                frequency=federation.frequencies[label],
                num_ground_truth=int(counts[label]),
                AP=mean_of_known(whole[:, :, label]),
                AP_per_iou=tuple(mean_of_known(one) for one in whole[:, :, label]),
            )
            for label in range(len(names))
        ),
    )


def _accumulated(
    truth: GroundTruth,
    federation: Federation,
    problem: ScoringProblem,
    ious: Sequence[float],
    max_detections: int,
) -> tuple[FloatArray, FloatArray]:
    """Precision ``(T, R, K, A)`` and recall ``(T, K, A)`` by label; -1 where nothing is to find."""
    numbers = category_numbers(truth.categories)
    image_numbers = np.argsort(np.argsort(truth.image_ids)) + 1
    absent, not_exhaustive = (
        _lists(image_numbers[pairs[:, 0]], numbers[pairs[:, 1]], problem.num_images)
        for pairs in (federation.absent, federation.not_exhaustive)
    )
    listed = hotcoco.COCO.from_arrays(
        [
            {
                **{"id": row + 1, "width": 0, "height": 0, "file_name": ""},
                "neg_category_ids": absent[row],
                "not_exhaustive_category_ids": not_exhaustive[row],
            }
            for row in range(problem.num_images)
        ],
        [
            {"id": number, "name": str(number), "frequency": letter or "f"}
            for number, letter in zip(numbers.tolist(), federation.frequencies, strict=True)
        ],
        problem.truth_images,
        problem.truth_categories,
        problem.truth_boxes,
        area=problem.truth_areas,
    )
    found = hotcoco.LVISResults(listed, problem.rows(), max_dets=max_detections)
    evaluation = hotcoco.LVISeval(listed, found, "bbox")
    evaluation.params.iou_thrs = list(ious)
    evaluation.params.max_dets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: Any = evaluation.eval
    precision, recall = (
        np.asarray(arrays[key], np.float64)[..., -1] for key in ("precision", "recall")
    )
    return precision[:, :, numbers - 1], recall[:, numbers - 1]


def _lists(images: IntArray, categories: IntArray, num_images: int) -> list[list[int]]:
    """The categories of each image."""
    order = np.argsort(images, kind="stable")
    starts = np.searchsorted(images[order], np.arange(2, num_images + 1))
    return [part.tolist() for part in np.split(categories[order], starts)]
