"""COCO's average precision and recall over a split: collects detections, then scores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from retina.distributed import gather_objects
from retina.evaluation.engines import (
    COCO_IOUS,
    COCO_MAX_DETECTIONS,
    DEFAULT_BACKEND,
    Backend,
    ScoringProblem,
    category_numbers,
    run_engine,
)
from retina.evaluation.f1 import best_f1
from retina.evaluation.matching import match_detections
from retina.evaluation.metrics import (
    DetectionMetrics,
    PrecisionRecallCurves,
    category_metrics,
    summarize,
)
from retina.structures import Detections, FloatArray, GroundTruth, IntArray

_IOU_THRESHOLDS = np.array(COCO_IOUS)
_RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


class _Columns(NamedTuple):
    images: IntArray  # (N,) position in the ground truth's sorted image ids
    boxes: FloatArray  # (N, 4) x, y, width, height
    scores: FloatArray  # (N,)
    labels: IntArray  # (N,)

    def at(self, rows: npt.NDArray[np.bool_]) -> _Columns:
        return _Columns(self.images[rows], self.boxes[rows], self.scores[rows], self.labels[rows])


class CocoMetrics:
    """Scores detections against the ground truth of a split.

    Every image of the ground truth counts, also one that no detection was given for. In a process
    group each rank gives the images it has; `compute` brings them together.

    Args:
        ground_truth: what to score against.
        backend: the engine; both give the same numbers.
        max_detections: how many detections of one category in one image count, the best first.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        *,
        backend: Backend = DEFAULT_BACKEND,
        max_detections: int = COCO_MAX_DETECTIONS,
    ) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, is {max_detections}")
        if backend not in get_args(Backend):
            raise ValueError(f"unknown backend {backend!r}: choose one of {get_args(Backend)}")
        self.ground_truth = ground_truth
        self.backend = backend
        self.max_detections = max_detections
        self._image_ids = np.unique(ground_truth.image_ids)
        if len(self._image_ids) != len(ground_truth.image_ids):
            raise ValueError("the ground truth lists an image id twice")
        is_listed = np.isin(ground_truth.annotation_image_ids, self._image_ids)
        if not is_listed.all():
            stray = ground_truth.annotation_image_ids[~is_listed][0]
            raise ValueError(f"the ground truth has an annotation for the unknown image id {stray}")
        self._is_seen = np.zeros(len(self._image_ids), dtype=np.bool_)
        self._parts: list[_Columns] = []

    def update(self, image_ids: Sequence[int], detections: Sequence[Detections]) -> None:
        """Add what was found in some images.

        Args:
            image_ids: original ids.
            detections: of each image, in pixels of the original image.

        Raises:
            ValueError: an image that the ground truth does not have or that was given before, a
                label that is no category, a box or score that is not finite.
        """
        images = self._positions(np.asarray(image_ids, dtype=np.int64))
        counts = [len(found) for found in detections]
        if len(counts) != len(images):
            raise ValueError(f"detections of {len(counts)} images for {len(images)} image ids")
        self._mark_seen(images)
        if not counts:
            return
        boxes = torch.cat([found.boxes for found in detections]).cpu().double().numpy()
        scores = torch.cat([found.scores for found in detections]).cpu().double().numpy()
        labels = torch.cat([found.labels for found in detections]).cpu().numpy()
        # Widths are differences in float64: float32 would round them once more.
        self._append(
            images=np.repeat(images, counts),
            boxes=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
            scores=scores,
            labels=labels.astype(np.int64),
        )

    def update_arrays(
        self, image_ids: IntArray, boxes_xywh: FloatArray, scores: FloatArray, labels: IntArray
    ) -> None:
        """Add detections of any images, one per row.

        Args:
            image_ids: ``(N,)`` original ids; the rows of an image must come in one call.
            boxes_xywh: ``(N, 4)`` (x, y, width, height) in pixels of the original image.
            scores: ``(N,)``; equal scores are ranked in the order of the rows.
            labels: ``(N,)`` contiguous labels.

        Raises:
            ValueError: as for `update`.
        """
        images = self._positions(np.asarray(image_ids, dtype=np.int64))
        self._mark_seen(np.unique(images))
        self._append(
            images=images,
            boxes=np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4),
            scores=np.asarray(scores, dtype=np.float64),
            labels=np.asarray(labels, dtype=np.int64),
        )

    def compute(self) -> DetectionMetrics:
        """The numbers over all images and, in a process group, over all ranks.

        In a process group every rank must call this; every rank gets the same numbers. An image
        that several ranks were given (a sampler that pads) counts once, as the first rank saw it.
        """
        return self.numbers_of(self.problem())

    def numbers_of(self, problem: ScoringProblem) -> DetectionMetrics:
        """The numbers of what `problem` has given; no other rank is asked."""
        truth = self.ground_truth
        caps = problem.max_detections
        arrays = run_engine(problem, self.backend)
        numbers = summarize(arrays.precision, arrays.recall, caps)
        by_label = self._number_of_label - 1
        curves = PrecisionRecallCurves(
            iou_thresholds=_IOU_THRESHOLDS,
            recall_levels=_RECALL_LEVELS,
            max_detections=caps,
            precision=arrays.precision[:, :, by_label],
            recall=arrays.recall[:, by_label],
            scores=arrays.scores[:, :, by_label],
        )
        counts = truth.class_counts()
        f1, f1_scores = (values[by_label].tolist() for values in _best_f1(problem))
        return DetectionMetrics(
            **numbers,
            per_category=tuple(
                category_metrics(
                    curves,
                    label,
                    name=truth.categories.distinct_names[label],
                    dataset_id=truth.categories.dataset_ids[label],
                    num_ground_truth=counts[label],
                    best_f1=f1[label],
                    best_f1_score=f1_scores[label],
                )
                for label in range(len(truth.categories))
            ),
            max_detections=self.max_detections,
            curves=curves,
        )

    def problem(self) -> ScoringProblem:
        """What the engine is given; images are numbered by their sorted ids, from 1.

        In a process group every rank must call this.
        """
        truth = self.ground_truth
        found = self._gather()
        number_of_label = self._number_of_label
        return ScoringProblem(
            num_images=len(self._image_ids),
            num_categories=len(number_of_label),
            truth_images=np.searchsorted(self._image_ids, truth.annotation_image_ids) + 1,
            truth_categories=number_of_label[truth.category_labels],
            truth_boxes=truth.boxes_xywh,
            truth_areas=truth.areas,
            truth_is_crowd=truth.is_crowd,
            images=found.images + 1,
            categories=number_of_label[found.labels],
            boxes=found.boxes,
            scores=found.scores,
            max_detections=tuple(sorted({1, min(10, self.max_detections), self.max_detections})),
        )

    @property
    def _number_of_label(self) -> IntArray:
        return category_numbers(self.ground_truth.categories)

    def _positions(self, image_ids: IntArray) -> IntArray:
        positions = np.searchsorted(self._image_ids, image_ids)
        known = positions < len(self._image_ids)
        known[known] = self._image_ids[positions[known]] == image_ids[known]
        if not known.all():
            raise ValueError(
                f"detections for image id {image_ids[~known][0]}, which the ground truth does not "
                "have: score them against the annotations of the same images"
            )
        return positions

    def _mark_seen(self, images: IntArray) -> None:
        repeated = images[self._is_seen[images]]
        if len(np.unique(images)) != len(images) or len(repeated):
            values, counts = np.unique(images, return_counts=True)
            first = repeated[0] if len(repeated) else values[counts > 1][0]
            raise ValueError(f"image id {self._image_ids[first]} was given twice")
        self._is_seen[images] = True

    def _append(
        self, *, images: IntArray, boxes: FloatArray, scores: FloatArray, labels: IntArray
    ) -> None:
        num_categories = len(self.ground_truth.categories)
        is_wrong = (labels < 0) | (labels >= num_categories)
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            raise ValueError(
                f"image id {self._image_ids[images[row]]}: label {labels[row]}, but the ground "
                f"truth has {num_categories} categories"
            )
        is_finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        if not is_finite.all():
            row = int(np.argmin(is_finite))
            raise ValueError(
                f"image id {self._image_ids[images[row]]}: a detection that is not finite, box "
                f"{boxes[row].tolist()}, score {scores[row]}"
            )
        self._parts.append(_Columns(images, boxes, scores, labels))

    def _gather(self) -> _Columns:
        """The detections of all ranks, each image from the first rank that has it."""
        mine = _concatenate(self._parts)
        is_taken = np.zeros_like(self._is_seen)
        parts = []
        for columns, is_seen in gather_objects((mine, self._is_seen)):
            is_new = ~is_taken[columns.images]
            parts.append(columns if is_new.all() else columns.at(is_new))
            is_taken |= is_seen
        return _concatenate(parts)


def _best_f1(problem: ScoringProblem) -> tuple[FloatArray, FloatArray]:
    """``(K,)`` each: the highest F1 at IoU 0.5 of the engine's categories, and its threshold."""
    (matching,) = match_detections(problem, (0.5,))
    objects = problem.truth_categories[~problem.truth_is_crowd] - 1
    num_objects = np.bincount(objects, minlength=problem.num_categories)
    return best_f1(problem.categories - 1, problem.scores, matching, num_objects)


def _concatenate(parts: Sequence[_Columns]) -> _Columns:
    if len(parts) == 1:
        return parts[0]
    return _Columns(
        np.concatenate([np.zeros(0, np.int64), *(part.images for part in parts)]),
        np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]),
        np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
    )
