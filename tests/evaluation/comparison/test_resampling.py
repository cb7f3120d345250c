"""The numbers on resamples, held against scoring the resample as a data set of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retina.evaluation.bootstrap import draw_multiplicities
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.comparison.resampling import resample
from retina.structures import GroundTruth


def _scored(truth: GroundTruth, found: Any, max_detections: int) -> CocoMetrics:
    metrics = CocoMetrics(truth, max_detections=max_detections, backend="pycocotools")
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics


def _copied(truth: GroundTruth, found: Any, counts: Any) -> tuple[GroundTruth, Any]:
    """The truth and the detections of a resample, in which a copy of an image has an id of its own.

    Ids follow those of the images, so that equal scores are ranked as in the resample.
    """
    ids = np.sort(truth.image_ids)
    pairs = [(id_, copy) for id_, count in zip(ids, counts, strict=True) for copy in range(count)]
    rows = [np.flatnonzero(truth.annotation_image_ids == id_) for id_, _ in pairs]
    hits = [np.flatnonzero(found.image_ids == id_) for id_, _ in pairs]
    new = [int(id_) * 100 + copy for id_, copy in pairs]
    taken = np.concatenate(rows)
    copied = replace(
        truth,
        image_ids=np.array(new),
        image_sizes=np.zeros((len(new), 2), dtype=np.int64),
        annotation_ids=np.arange(len(taken)) + 1,
        annotation_image_ids=np.repeat(new, [len(row) for row in rows]),
        category_labels=truth.category_labels[taken],
        boxes_xywh=truth.boxes_xywh[taken],
        areas=truth.areas[taken],
        is_crowd=truth.is_crowd[taken],
    )
    kept = np.concatenate(hits)
    detections = replace(
        found,
        image_ids=np.repeat(new, [len(hit) for hit in hits]),
        boxes_xywh=found.boxes_xywh[kept],
        scores=found.scores[kept],
        labels=found.labels[kept],
    )
    return copied, detections


@pytest.mark.parametrize("max_detections", [100, 4, 1])
def test_a_resample_scores_as_the_data_set_of_its_images(
    max_detections: int, random_tree: Any, random_detections: Any, ground_truth_of: Any
) -> None:
    tree = random_tree(5, num_images=15, num_categories=4, num_objects=60)
    truth, found = ground_truth_of(tree), random_detections(6, tree, per_image=8)
    counts = draw_multiplicities(15, 6, seed=1)
    resampled = resample(_scored(truth, found, max_detections).problem(), counts)
    for row in range(6):
        wanted = _scored(*_copied(truth, found, counts[row]), max_detections).compute()
        for name, value in wanted.numbers().items():
            got = np.nan_to_num(resampled.numbers[name][row], nan=-1.0)
            assert got == pytest.approx(value, abs=1e-9), name
        ids = sorted(truth.categories.dataset_ids)
        for category in wanted.per_category:
            samples = resampled.class_ap.get(ids.index(category.dataset_id) + 1)
            value = np.nan if samples is None else samples[row]
            assert value == pytest.approx(
                np.nan if category.AP is None else category.AP, abs=1e-9, nan_ok=True
            )


def test_nothing_to_find_gives_no_number(ground_truth_of: Any) -> None:
    tree = {
        "images": [{"id": 1, "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    problem = CocoMetrics(ground_truth_of(tree)).problem()
    resampled = resample(problem, np.ones((3, 1), dtype=np.int64))
    assert all(np.isnan(values).all() for values in resampled.numbers.values())
    assert resampled.class_ap == {}
