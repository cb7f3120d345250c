"""AP at any thresholds: COCO's where they are COCO's, and pycocotools' at others."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import COCO_IOUS, Backend
from retina.evaluation.iou_metrics import iou_metrics, parse_ious


@pytest.fixture
def metrics(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., Any],
    ground_truth_of: Callable[[Any], Any],
) -> CocoMetrics:
    tree = random_tree(1, num_images=20, num_categories=4, num_objects=80)
    found = random_detections(1, tree, per_image=15)
    metrics = CocoMetrics(ground_truth_of(tree))
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics


@pytest.mark.parametrize("backend", get_args(Backend))
def test_cocos_thresholds_give_cocos_numbers(metrics: CocoMetrics, backend: Backend) -> None:
    expected = metrics.compute()
    ious = parse_ious("0.50:0.95")
    assert ious == COCO_IOUS
    found = iou_metrics(metrics.ground_truth, metrics.problem(), ious, backend)
    assert (found.AP, found.AR) == (expected.AP, expected.AR100)
    by_iou = {one.iou: one.AP for one in found.per_iou}
    assert (by_iou[0.5], by_iou[0.75]) == (expected.AP50, expected.AP75)
    for ours, theirs in zip(found.per_category, expected.per_category, strict=True):
        assert (ours.name, ours.num_ground_truth) == (theirs.name, theirs.num_ground_truth)
        assert ours.AP == theirs.AP
        assert ours.AP_per_iou[0] == theirs.AP50


def test_any_thresholds_are_what_pycocotools_gives(
    judge: Callable[..., Any],
    random_tree: Callable[..., Any],
    random_detections: Callable[..., Any],
    metrics: CocoMetrics,
) -> None:
    tree = random_tree(1, num_images=20, num_categories=4, num_objects=80)
    theirs = judge(tree, random_detections(1, tree, per_image=15))
    ious = (0.3, 0.62, 0.9)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.params.iouThrs = np.array(ious)
        theirs.evaluate()
        theirs.accumulate()
    precision = theirs.eval["precision"][..., 0, -1]
    found = iou_metrics(metrics.ground_truth, metrics.problem(), ious, "hotcoco")
    assert precision[precision > -1].mean() == found.AP
    for number, one in enumerate(found.per_iou):
        values = precision[number]
        assert (one.iou, one.AP) == (ious[number], values[values > -1].mean())


@pytest.mark.parametrize(
    ("text", "ious"),
    [
        ("0.5", (0.5,)),
        ("0.5,0.75,0.9", (0.5, 0.75, 0.9)),
        ("0.5 0.75, 0.9", (0.5, 0.75, 0.9)),
        ("0.9,0.5,0.9", (0.9, 0.5)),
        ("0.5:0.7:0.1", (0.5, 0.6, 0.7)),
        ("1,0.1:0.2", (1, 0.1, 0.15, 0.2)),
    ],
)
def test_how_thresholds_are_written(text: str, ious: tuple[float, ...]) -> None:
    assert parse_ious(text) == pytest.approx(ious)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no threshold"),
        ("half", "'half' is no number"),
        ("nan", "'nan' is no number"),
        ("0", "above 0 and at most 1, not 0"),
        ("50,75", "above 0 and at most 1, not 50"),
        ("0.95:0.5", "is no range"),
        ("0.5:0.95:0.1", "is no range"),
        ("0.5:0.95:0", "is no range"),
        ("0.01:0.9:0.0001", "is no range"),
        ("0.01:1:0.01,0.005", "101 thresholds are too many"),
    ],
)
def test_what_is_no_threshold(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_ious(text)
