"""Boxes of one object in several views become one."""

from __future__ import annotations

import pytest
import torch

from retina.geometry.fusion import fuse
from retina.structures import Detections

FOUND = Detections(
    boxes=torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10]]),
    scores=torch.tensor([0.75, 0.25, 0.5, 0.9]),
    labels=torch.tensor([0, 0, 0, 1]),
)


def test_nms_keeps_the_best_box_of_each_object() -> None:
    found = fuse(FOUND, iou_threshold=0.5)
    assert found.scores.tolist() == pytest.approx([0.9, 0.75, 0.5])
    assert found.labels.tolist() == [1, 0, 0]
    assert found.boxes[1].tolist() == [0, 0, 10, 10]


def test_weighted_takes_the_mean_box_and_the_best_score() -> None:
    found = fuse(FOUND, iou_threshold=0.5, merge="weighted")
    assert found.scores.tolist() == pytest.approx([0.9, 0.75, 0.5])
    assert found.boxes[1].tolist() == [0.25, 0, 10.25, 10]
    assert found.boxes[2].tolist() == [50, 50, 60, 60]


def test_the_score_of_whole_views_is_their_mean() -> None:
    found = fuse(FOUND, iou_threshold=0.5, merge="weighted", num_views=2)
    assert found.scores.tolist() == pytest.approx([0.5, 0.45, 0.25])
    assert found.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("merge", ["nms", "weighted"])
def test_nothing_is_nothing_and_scores_of_0_are_no_division(merge: str) -> None:
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert len(fuse(none, iou_threshold=0.5, merge=merge)) == 0  # type: ignore[arg-type]
    flat = Detections(FOUND.boxes, torch.zeros(4), FOUND.labels)
    found = fuse(flat, iou_threshold=0.5, merge=merge)  # type: ignore[arg-type]
    assert bool(found.boxes.isfinite().all())
    assert len(found) == 3
