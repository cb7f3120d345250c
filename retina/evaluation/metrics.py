"""What scoring a split gives: the twelve COCO numbers, the same per category, and the curves.

Letters: T IoU thresholds, R recall levels, K categories, A area ranges, M caps on the number of
detections. The area ranges are COCO's ranges of annotated area, in this order: all, small (up to
32²), medium (up to 96²), large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from retina.structures import FloatArray

METRIC_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "AR1",
    "AR10",
    "AR100",
    "ARs",
    "ARm",
    "ARl",
)
"""The twelve numbers in pycocotools' order."""


@dataclass(frozen=True)
class PrecisionRecallCurves:
    """The accumulated arrays of COCO's evaluation; -1 where there is no ground truth.

    Attributes:
        iou_thresholds: ``(T,)`` 0.50, 0.55 … 0.95.
        recall_levels: ``(R,)`` 0.00, 0.01 … 1.00.
        max_detections: M caps on the detections of one category in one image.
        precision: ``(T, R, K, A, M)``, the highest precision at this recall or beyond.
        recall: ``(T, K, A, M)``, the recall of all detections.
        scores: ``(T, R, K, A, M)``, the score at which a recall level is reached; 0 where it is
            never reached.
    """

    iou_thresholds: FloatArray
    recall_levels: FloatArray
    max_detections: tuple[int, ...]
    precision: FloatArray
    recall: FloatArray
    scores: FloatArray

    def curve(self, label: int, *, iou: float = 0.5) -> FloatArray:
        """The precision of one category at every recall level, ``(R,)``, all areas, highest cap.

        Raises:
            ValueError: ``iou`` is no evaluated threshold.
        """
        return self.precision[self._threshold_index(iou), :, label, 0, -1]

    def _threshold_index(self, iou: float) -> int:
        matches = np.flatnonzero(np.isclose(self.iou_thresholds, iou, rtol=0, atol=1e-9))
        if len(matches) == 0:
            raise ValueError(f"IoU {iou} is none of the evaluated thresholds {self.iou_thresholds}")
        return int(matches[0])


@dataclass(frozen=True)
class CategoryMetrics:
    """The twelve numbers of one category; None where it has no ground truth of that size.

    Attributes:
        name: the category's name, as `Categories.distinct_names` has it.
        dataset_id: its original id.
        num_ground_truth: annotated objects, crowd regions not counted.
        best_f1: the highest F1 at IoU 0.5 over all score thresholds, of all detections: also of
            those beyond the cap of the twelve numbers, as they are shown all the same.
        best_f1_score: the highest score threshold that gives it; None where nothing is found.
    """

    name: str
    dataset_id: int
    num_ground_truth: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    best_f1: float | None
    best_f1_score: float | None


@dataclass(frozen=True)
class DetectionMetrics:
    """The twelve COCO numbers, as pycocotools gives them: -1 where a split has no ground truth.

    The names keep ``100`` whatever the cap: ``AR100`` and all that has no number in its name are
    taken at the highest cap, ``max_detections``.

    Attributes:
        per_category: in the order of the labels.
        max_detections: the highest number of detections of one category in one image that count.
        curves: the arrays that the numbers are means of.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_category: tuple[CategoryMetrics, ...]
    max_detections: int
    curves: PrecisionRecallCurves = field(repr=False, compare=False)

    @property
    def is_scored(self) -> bool:
        """Whether there was an object to find; crowd regions are none."""
        return self.AP >= 0

    def numbers(self) -> dict[str, float]:
        """The twelve numbers by name, in the usual order."""
        return {name: getattr(self, name) for name in METRIC_NAMES}

    def to_json(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: the twelve numbers and ``per_category``, no curves."""
        return {
            **self.numbers(),
            "max_detections": self.max_detections,
            "per_category": [asdict(category) for category in self.per_category],
        }


def summarize(
    precision: FloatArray, recall: FloatArray, max_detections: Sequence[int]
) -> dict[str, float]:
    """The twelve means of the accumulated arrays, -1 where nothing can be averaged.

    This is pycocotools' summary for any caps: its own looks for the cap 100 and says -1 when that
    is not among them. AR1 and AR10 are taken at the caps 1 and 10, or at the highest if lower.

    Args:
        precision: ``(T, R, K, A, M)``, thresholds 0.50 … 0.95.
        recall: ``(T, K, A, M)``.
        max_detections: M caps, ascending.
    """
    caps = list(max_detections)
    at_1, at_10 = (caps.index(min(cap, caps[-1])) for cap in (1, 10))
    values = [
        _mean(precision[..., 0, -1]),
        _mean(precision[0, ..., 0, -1]),
        _mean(precision[5, ..., 0, -1]),
        *(_mean(precision[..., area, -1]) for area in (1, 2, 3)),
        _mean(recall[..., 0, at_1]),
        _mean(recall[..., 0, at_10]),
        *(_mean(recall[..., area, -1]) for area in (0, 1, 2, 3)),
    ]
    return dict(zip(METRIC_NAMES, values, strict=True))


def _mean(values: FloatArray) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0


def category_metrics(
    curves: PrecisionRecallCurves,
    label: int,
    *,
    name: str,
    dataset_id: int,
    num_ground_truth: int,
    best_f1: float,
    best_f1_score: float,
) -> CategoryMetrics:
    """The numbers of one category out of the curves; its F1 is known, NaN for none."""
    one = slice(label, label + 1)
    numbers = summarize(curves.precision[:, :, one], curves.recall[:, one], curves.max_detections)
    return CategoryMetrics(
        name=name,
        dataset_id=dataset_id,
        num_ground_truth=num_ground_truth,
        best_f1=None if np.isnan(best_f1) else best_f1,
        best_f1_score=None if np.isnan(best_f1_score) else best_f1_score,
        **{key: None if value < 0 else value for key, value in numbers.items()},
    )
