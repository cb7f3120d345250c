"""The two engines that match detections to ground truth and accumulate precision and recall.

pycocotools is the reference; hotcoco gives the same arrays, bit for bit, about a hundred times
faster. Both are fed from the same arrays. Images, categories and annotations are numbered from 1
here, in the order of their original ids, for three reasons: pycocotools takes an annotation whose
id is 0 for "not matched"; its result rows are float64, which would round ids above 2^53; hotcoco
refuses negative ids. The order matters, because equal scores are ranked by it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import hotcoco
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval

from retina.structures import BoolArray, Categories, FloatArray, IntArray

Backend = Literal["hotcoco", "pycocotools"]
"""The libraries that can match detections and accumulate precision and recall."""

DEFAULT_BACKEND: Backend = "hotcoco"
"""The fast one; both give the same numbers."""

COCO_MAX_DETECTIONS = 100
"""Detections of one category in one image that count, as COCO says."""

COCO_IOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The thresholds whose mean is COCO's AP."""

BATCH_SIZE = 8
"""Images that an evaluation looks at at a time."""


@dataclass(frozen=True, slots=True)
class ScoringProblem:
    """Everything that an engine needs, with ids 1, 2, … for images and categories.

    Attributes:
        num_images: images 1 .. num_images.
        num_categories: categories 1 .. num_categories.
        truth_images, truth_categories: ``(G,)``.
        truth_boxes: ``(G, 4)`` (x, y, width, height).
        truth_areas: ``(G,)`` as annotated.
        truth_is_crowd: ``(G,)``.
        images, categories: ``(N,)`` of the detections; those of one image in their given order.
        boxes: ``(N, 4)`` (x, y, width, height).
        scores: ``(N,)``.
        max_detections: ascending caps on the detections of one category in one image.
    """

    num_images: int
    num_categories: int
    truth_images: IntArray
    truth_categories: IntArray
    truth_boxes: FloatArray
    truth_areas: FloatArray
    truth_is_crowd: BoolArray
    images: IntArray
    categories: IntArray
    boxes: FloatArray
    scores: FloatArray
    max_detections: tuple[int, ...]

    def rows(self) -> FloatArray:
        """The detections as ``(N, 7)``: image, x, y, width, height, score, category."""
        return np.column_stack([self.images, self.boxes, self.scores, self.categories]).astype(
            np.float64, copy=False
        )


@dataclass(frozen=True, slots=True)
class Accumulated:
    """An engine's arrays: see `PrecisionRecallCurves` for the shapes."""

    precision: FloatArray
    recall: FloatArray
    scores: FloatArray


def category_numbers(categories: Categories) -> IntArray:
    """``(K,)`` the number of each label's category inside the engines, from 1.

    The engines run over the sorted original ids, as pycocotools has it: the means over all
    categories depend in their last bit on the order of the terms.
    """
    numbers: IntArray = np.argsort(np.argsort(np.asarray(categories.dataset_ids, np.int64))) + 1
    return numbers


def run_engine(
    problem: ScoringProblem, backend: Backend, ious: Sequence[float] = COCO_IOUS
) -> Accumulated:
    """Precision, recall and scores by COCO's rules, float64, laid out as pycocotools has them."""
    run = {"hotcoco": _run_hotcoco, "pycocotools": _run_pycocotools}[backend]
    arrays = run(problem, ious)
    return Accumulated(
        *(np.asarray(arrays[key], dtype=np.float64) for key in ("precision", "recall", "scores"))
    )


def run_slices(
    problem: ScoringProblem,
    *,
    truth_values: FloatArray,
    values: FloatArray,
    ranges: Sequence[tuple[float, float]],
    caps: Sequence[int] | None = None,
) -> Accumulated:
    """Precision and recall of the objects with a property in some ranges, as COCO has it for areas.

    What an area is to COCO the property is here: an object outside a range is ignored with the
    detection that has found it, and so is a detection outside the range that has found nothing.

    Args:
        problem: of the split.
        truth_values: ``(G,)`` the property of each annotation.
        values: ``(N,)`` the property of each detection.
        ranges: lowest and highest value, both within.
        caps: on the detections of one category in one image; None for the problem's highest.

    Returns:
        The arrays with one row of A for each range.
    """
    evaluation = _hotcoco_evaluation(
        replace(
            problem,
            truth_areas=np.asarray(truth_values, dtype=np.float64),
            max_detections=tuple(caps or problem.max_detections[-1:]),
        ),
        values,
    )
    evaluation.params.area_rng = [list(one) for one in ranges]
    evaluation.params.area_rng_lbl = [str(number) for number in range(len(ranges))]
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = evaluation.eval
    return Accumulated(
        *(np.asarray(arrays[key], dtype=np.float64) for key in ("precision", "recall", "scores"))
    )


def tide(problem: ScoringProblem) -> dict[str, Any]:
    """The errors as hotcoco counts them: ``ap_base``, ``delta_ap`` and ``counts``, at IoU 0.5."""
    evaluation = _hotcoco_evaluation(problem)
    evaluation.evaluate()
    errors: dict[str, Any] = evaluation.tide_errors(pos_thr=0.5, bg_thr=0.1)
    return errors


def _run_hotcoco(problem: ScoringProblem, ious: Sequence[float]) -> dict[str, Any]:
    evaluation = _hotcoco_evaluation(problem)
    evaluation.params.iou_thrs = list(ious)
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: dict[str, Any] = evaluation.eval
    return arrays


def _hotcoco_evaluation(problem: ScoringProblem, values: FloatArray | None = None) -> Any:
    """The evaluation before it runs; ``values`` are taken for the areas of the detections."""
    truth = hotcoco.COCO.from_arrays(
        [
            {"id": image, "width": 0, "height": 0, "file_name": ""}
            for image in range(1, problem.num_images + 1)
        ],
        _category_rows(problem),
        problem.truth_images,
        problem.truth_categories,
        problem.truth_boxes,
        area=problem.truth_areas,
        iscrowd=problem.truth_is_crowd,
    )
    found = truth.load_res(problem.rows())
    if values is not None and len(values):
        found.update_anns(ids=np.arange(1, len(values) + 1), area=np.asarray(values, np.float64))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.params.max_dets = list(problem.max_detections)
    return evaluation


def _run_pycocotools(problem: ScoringProblem, ious: Sequence[float]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = _pycocotools_truth(problem)
        if len(problem.images):
            results = truth.loadRes(problem.rows())
        else:  # loadRes looks at the first row
            results = pycocotools.coco.COCO()
            results.dataset = {**truth.dataset, "annotations": []}
            results.createIndex()
        evaluation = pycocotools.cocoeval.COCOeval(truth, results, "bbox")
        evaluation.params.maxDets = list(problem.max_detections)
        evaluation.params.iouThrs = np.array(ious)
        evaluation.evaluate()
        evaluation.accumulate()
    arrays: dict[str, Any] = evaluation.eval
    return arrays


def _pycocotools_truth(problem: ScoringProblem) -> Any:
    columns = zip(
        problem.truth_images.tolist(),
        problem.truth_categories.tolist(),
        problem.truth_boxes.tolist(),
        problem.truth_areas.tolist(),
        problem.truth_is_crowd.tolist(),
        strict=True,
    )
    truth = pycocotools.coco.COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(1, problem.num_images + 1)],
        "categories": _category_rows(problem),
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": area,
                "iscrowd": int(is_crowd),
            }
            for number, (image, category, box, area, is_crowd) in enumerate(columns, start=1)
        ],
    }
    truth.createIndex()
    return truth


def _category_rows(problem: ScoringProblem) -> list[dict[str, Any]]:
    return [
        {"id": category, "name": str(category)} for category in range(1, problem.num_categories + 1)
    ]
