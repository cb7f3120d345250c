"""The evidence about labels, on outputs made by hand."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.instruments.label_errors import evidence as evidence_module
from retina.instruments.label_errors.evidence import (
    DenseEvidence,
    Hypotheses,
    ImageEvidence,
    LabelEvidence,
)


def evidence(
    boxes: list[list[float]],
    probabilities: list[list[float]],
    labels: list[list[float]],
    crowds: list[list[float]] | None = None,
) -> ImageEvidence:
    """Predictions that stand at their own anchors."""
    there = torch.tensor(boxes)
    dense = DenseEvidence(there, torch.tensor(probabilities), there)
    return ImageEvidence(
        dense,
        torch.tensor(labels).reshape(-1, 4),
        crowd_boxes=torch.tensor(crowds or []).reshape(-1, 4),
    )


def hypotheses(boxes: list[list[float]], labels: list[int], stands_for: list[int]) -> Hypotheses:
    return Hypotheses(torch.tensor(boxes), torch.tensor(labels), torch.tensor(stands_for))


def probability(logit: Tensor) -> float:
    return float(torch.sigmoid(logit))


A, B = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 60.0]


def test_a_label_that_is_seen_as_it_is_and_one_that_is_seen_as_another_class():
    seen = evidence([A, B], [[0.9, 0.1, 0.0], [0.2, 0.0, 0.7]], [A, B])
    found = seen.of_labels(hypotheses([A, B], [0, 0], [0, 1]))
    own, other, support, overlap, score, own_anchors, other_anchors = found.features.T
    assert [probability(v) for v in own] == pytest.approx([0.9, 0.2])
    assert [probability(v) for v in other] == pytest.approx([0.1, 0.7])
    assert [probability(v) for v in support] == pytest.approx([0.9, 0.7])
    assert overlap.tolist() == pytest.approx([1.0, 1.0])
    assert [probability(v) for v in score] == pytest.approx([0.9, 0.7])
    assert [probability(v) for v in own_anchors] == pytest.approx([0.9, 0.2])
    assert [probability(v) for v in other_anchors] == pytest.approx([0.1, 0.7])
    assert found.other_labels.tolist() == [1, 2]
    assert found.other_scores.tolist() == pytest.approx([0.1, 0.7])
    assert found.seen_labels.tolist() == [0, 2]


def test_a_moved_label_is_seen_at_its_object():
    moved = [5.0, 0.0, 15.0, 10.0]  # shares 50 of 150
    found = evidence([A], [[0.8, 0.0]], [moved]).of_labels(hypotheses([moved], [0], [0]))
    assert float(found.features[0, 3]) == pytest.approx(1 / 3)
    assert probability(found.features[0, 2]) == pytest.approx(0.8 / 3)
    assert found.seen_boxes.tolist() == [A]


def test_a_box_on_nothing_has_no_evidence():
    found = evidence([A], [[0.8, 0.1]], [A]).of_labels(hypotheses([B], [0], [-1]))
    floor = math.log(1e-4 / (1 - 1e-4))
    assert found.features[0, :3].tolist() == pytest.approx([floor] * 3, rel=1e-4)
    assert float(found.features[0, 3]) == 0
    # Nor does what is seen elsewhere in the image count as seen here.
    assert found.other_scores.tolist() == found.seen_scores.tolist() == [0.0]
    assert found.seen_labels.tolist() == [0]


def test_what_another_label_explains_is_no_evidence_unless_it_is_replaced():
    near = [2.0, 0.0, 12.0, 10.0]  # overlaps A by 2/3
    seen = evidence([A], [[0.9, 0.0]], [A, B])
    beside = seen.of_labels(hypotheses([near], [0], [1]))
    instead = seen.of_labels(hypotheses([near], [0], [0]))
    assert probability(beside.features[0, 0]) == pytest.approx(1e-4, rel=1e-3)
    assert probability(instead.features[0, 0]) == pytest.approx(0.9)


def test_detections_are_matched_with_labels_and_described_without_them():
    found = evidence([A, B], [[0.9, 0.0], [0.0, 0.6]], [A]).of_detections()
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.labels.tolist() == [0, 1]
    assert found.matched.tolist() == [0, -1]
    assert probability(found.features[0, 0]) == pytest.approx(0.9)
    assert found.features[:, 1].tolist() == pytest.approx([math.log(0.9), math.log(0.6)])
    assert found.features[:, 2:].tolist() == [[0.0] * 4, [0.0] * 4]  # A's own label does not count


def test_an_object_beside_its_label_is_not_missing():
    moved = [5.0, 0.0, 15.0, 10.0]
    assert len(evidence([A], [[0.8, 0.0]], [moved]).of_detections().scores) == 0


def test_one_object_of_two_classes_is_one_detection():
    found = evidence([A, A], [[0.9, 0.0], [0.0, 0.6]], []).of_detections()
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.matched.tolist() == [-1]


def test_one_class_and_no_label_are_enough():
    seen = evidence([A], [[0.5]], [])
    found = seen.of_labels(hypotheses([A], [0], [-1]))
    assert probability(found.features[0, 0]) == pytest.approx(0.5)
    assert probability(found.features[0, 1]) == pytest.approx(1e-4, rel=1e-3)


def test_a_crowd_region_explains_what_lies_in_it_by_half():
    inside, half_out, beside = [0.0, 0.0, 4.0, 4.0], [9.0, 20.0, 12.0, 24.0], [60.0, 0, 64, 4]
    boxes, scores = [inside, half_out, beside], [[0.9], [0.8], [0.7]]
    crowd = [0.0, 0.0, 10.0, 50.0]  # a hundred times as large as what lies in it: IoU 0.03
    found = evidence(boxes, scores, [], [crowd]).of_detections()
    assert found.boxes.tolist() == [half_out, beside]  # a third of it is inside, and nothing
    labelled = evidence(boxes, scores, [inside], [crowd]).of_detections()
    assert labelled.matched.tolist() == [0, -1, -1]  # an object with a label stays one


def test_many_labels_at_many_anchors_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * 200
    boxes = torch.cat([corners, corners + 10 + 30 * torch.rand(500, 2, generator=generator)], 1)
    probabilities = torch.rand(500, 3, generator=generator)
    labels = torch.arange(60) % 3
    asked = Hypotheses(boxes[:60], labels, torch.arange(60))
    seen = ImageEvidence(
        DenseEvidence(boxes, probabilities, boxes), boxes[:60], crowd_boxes=torch.zeros(0, 4)
    )
    whole = seen.of_labels(asked)

    largest = 0

    def measured(a: Tensor, b: Tensor) -> Tensor:
        nonlocal largest
        overlap = pairwise_iou(a, b)
        largest = max(largest, overlap.numel())
        return overlap

    monkeypatch.setattr(evidence_module, "pairwise_iou", measured)
    monkeypatch.setattr(evidence_module, "_LARGEST_MATRIX", 3500)
    in_parts = seen.of_labels(asked)
    assert largest == 7 * 500
    for field in fields(LabelEvidence):
        torch.testing.assert_close(getattr(in_parts, field.name), getattr(whole, field.name))
