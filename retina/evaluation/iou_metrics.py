"""COCO's average precision and recall at any IoU thresholds, together and one by one.

Letters: K classes, T thresholds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retina.errors import UserError
from retina.evaluation.engines import Backend, ScoringProblem, category_numbers, run_engine
from retina.structures import FloatArray, GroundTruth

_RANGE = re.compile(r"([^:]+):([^:]+)(?::([^:]+))?")
_STEP = 0.05
_MOST = 100


@dataclass(frozen=True, slots=True)
class IouNumbers:
    """The means over the classes at one threshold; None where there is nothing to find."""

    iou: float
    AP: float | None
    AR: float | None


@dataclass(frozen=True, slots=True)
class IouCategory:
    """The numbers of one class; None where it has no object.

    Attributes:
        AP: the mean over the thresholds.
        AP_per_iou: T of them.
    """

    name: str
    dataset_id: int
    num_ground_truth: int
    AP: float | None
    AP_per_iou: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class IouMetrics:
    """COCO's numbers at the thresholds that were asked for, all areas.

    Attributes:
        AP: the mean over the thresholds and classes.
        AR: the recall of all detections up to the cap, likewise.
        per_iou: at each threshold.
        per_category: in the order of the labels.
    """

    AP: float | None
    AR: float | None
    per_iou: tuple[IouNumbers, ...]
    per_category: tuple[IouCategory, ...]

    def to_json(self) -> dict[str, Any]:
        """What stands under ``ious`` in ``metrics.json``."""
        return asdict(self)


def iou_metrics(
    truth: GroundTruth, problem: ScoringProblem, ious: Sequence[float], backend: Backend
) -> IouMetrics:
    """Score the detections of a split: `CocoMetrics.problem` of the same ground truth."""
    arrays = run_engine(problem, backend, ious)
    precision = arrays.precision[..., 0, -1]  # (T, R, K)
    recall = arrays.recall[..., 0, -1]  # (T, K)
    counts, categories = truth.class_counts(), truth.categories
    by_label = category_numbers(categories) - 1
    return IouMetrics(
        AP=mean_of_known(precision),
        AR=mean_of_known(recall),
        per_iou=tuple(
            IouNumbers(round(iou, 9), mean_of_known(precision[at]), mean_of_known(recall[at]))
            for at, iou in enumerate(ious)
        ),
        per_category=tuple(
            IouCategory(
                name=categories.distinct_names[label],
                dataset_id=categories.dataset_ids[label],
                num_ground_truth=counts[label],
                AP=mean_of_known(precision[:, :, number]),
                AP_per_iou=tuple(mean_of_known(one) for one in precision[:, :, number]),
            )
            for label, number in enumerate(by_label.tolist())
        ),
    )


def mean_of_known(values: FloatArray) -> float | None:
    """The mean of all values that are neither NaN nor -1; None where there is none."""
    known = values[values > -1]
    return float(np.mean(known)) if known.size else None


def parse_ious(text: str, option: str = "--ious") -> tuple[float, ...]:
    """IoU thresholds: numbers with commas or spaces between them, or ``0.50:0.95``.

    Args:
        text: of the option; a third number of a range is its step, by default 0.05.
        option: for messages.

    Raises:
        UserError: it is no such list, or a threshold is not above 0 and at most 1.
    """
    parts = text.replace(",", " ").split()
    if not parts:
        raise UserError(f"{option}: names no threshold; write numbers such as 0.5,0.75,0.9")
    ious = [iou for part in parts for iou in _thresholds(part, option)]
    for iou in ious:
        if not 0 < iou <= 1:
            raise UserError(f"{option}: an IoU is above 0 and at most 1, not {iou:g}")
    if len(ious) > _MOST:
        raise UserError(f"{option}: {len(ious)} thresholds are too many; give {_MOST} at most")
    return tuple(dict.fromkeys(ious))


def _thresholds(part: str, option: str) -> list[float]:
    between = _RANGE.fullmatch(part)
    if between is None:
        return [_number(part, option)]
    first, last = _number(between[1], option), _number(between[2], option)
    step = _STEP if between[3] is None else _number(between[3], option)
    steps = (last - first) / step if step > 0 else -1
    if steps < 0 or steps > _MOST or not math.isclose(steps, round(steps), abs_tol=1e-6):
        raise UserError(
            f"{option}: '{part}' is no range: from the first number on, steps of {step:g} must "
            "reach the second, as in 0.50:0.95:0.05"
        )
    # As pycocotools makes them: 0.50:0.95 gives COCO's thresholds to the last bit.
    ious: list[float] = np.linspace(first, last, round(steps) + 1).tolist()
    return ious


def _number(text: str, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{option}: '{text}' is no number; write numbers such as 0.5,0.75,0.9")
    return number
