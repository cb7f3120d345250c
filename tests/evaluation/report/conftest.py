"""Splits that were scored, random or made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import Categories, GroundTruth

Box = tuple[float, float, float, float]


def _metrics(
    truth: Sequence[tuple[int, int, Box]],
    found: Sequence[tuple[int, int, Box, float]],
    *,
    num_images: int = 1,
    num_classes: int = 2,
    crowds: Sequence[int] = (),
) -> CocoMetrics:
    """Objects (image, label, xywh) and detections (image, label, xywh, score), by hand."""
    boxes = np.array([box for _, _, box in truth], dtype=np.float64).reshape(-1, 4)
    ground_truth = GroundTruth(
        categories=Categories(
            tuple(f"class {label}" for label in range(num_classes)),
            tuple(range(10 * num_classes, 0, -10)),  # ids that fall while the labels rise
        ),
        image_ids=np.arange(1, num_images + 1),
        image_sizes=np.tile(np.array([[480, 640]]), (num_images, 1)),
        annotation_ids=np.arange(1, len(truth) + 1),
        annotation_image_ids=np.array([image for image, _, _ in truth], dtype=np.int64),
        category_labels=np.array([label for _, label, _ in truth], dtype=np.int64),
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        is_crowd=np.isin(np.arange(len(truth)), crowds),
    )
    metrics = CocoMetrics(ground_truth)
    metrics.update_arrays(
        np.array([image for image, _, _, _ in found], dtype=np.int64),
        np.array([box for _, _, box, _ in found], dtype=np.float64).reshape(-1, 4),
        np.array([score for _, _, _, score in found], dtype=np.float64),
        np.array([label for _, label, _, _ in found], dtype=np.int64),
    )
    return metrics


@pytest.fixture(scope="session")
def metrics_by_hand() -> Callable[..., CocoMetrics]:
    return _metrics


@pytest.fixture(scope="session")
def random_metrics(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], GroundTruth],
) -> Callable[..., CocoMetrics]:
    """Crowd regions, tied scores, boxes without area, a class and images without objects."""

    def make(
        seed: int, *, num_classes: int = 4, num_images: int = 12, per_image: int = 25
    ) -> CocoMetrics:
        tree = random_tree(
            seed, num_images=num_images, num_categories=num_classes, num_objects=8 * num_images
        )
        found = random_detections(seed + 100, tree, per_image=per_image)
        labels = found.labels.copy()  # some of the wrong class
        wrong = np.random.default_rng(seed).random(len(labels)) < 0.3
        labels[wrong] = (labels[wrong] + 1) % num_classes
        metrics = CocoMetrics(ground_truth_of(tree))
        metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, labels)
        return metrics

    return make


@pytest.fixture(scope="session")
def random_split(random_metrics: Callable[..., CocoMetrics]) -> Callable[..., ScoredSplit]:
    return lambda seed, **options: ScoredSplit.of(random_metrics(seed, **options))
