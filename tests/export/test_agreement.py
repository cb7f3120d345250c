"""When two lists of detections are the same, by hand."""

from __future__ import annotations

import pytest
import torch

from retina.export.agreement import compare_detections
from retina.modeling.postprocess import PostprocessConfig
from retina.structures import Detections

RULE = PostprocessConfig(max_detections=3)

Row = tuple[tuple[float, float, float, float], float, int]

A: Row = ((0, 0, 10, 10), 0.9, 0)
B: Row = ((50, 50, 60, 60), 0.8, 1)
NEAR_A: Row = ((1, 0, 11, 10), 0.9, 0)  # an IoU of 9/11 with A


def found(*rows: Row) -> Detections:
    boxes, scores, labels = ([row[part] for row in rows] for part in range(3))
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
    )


def moved(row: Row, *, by: float = 0.0, score: float = 0.0) -> Row:
    (x1, y1, x2, y2), old, label = row
    return (x1 + by, y1, x2, y2), old + score, label


def test_small_differences_are_measured() -> None:
    agreement = compare_detections(
        found(A, B), found(moved(A, by=0.004), moved(B, score=5e-5)), RULE
    )
    assert (agreement.num_same, agreement.ties, agreement.faults) == (2, (), ())
    assert agreement.box_difference == pytest.approx(0.004, abs=1e-6)
    assert agreement.score_difference == pytest.approx(5e-5, abs=1e-6)


def test_no_detections_agree() -> None:
    agreement = compare_detections(found(), found(), RULE)
    assert (agreement.num_same, agreement.ties, agreement.faults) == (0, (), ())


@pytest.mark.parametrize(
    "other",
    [
        found(A),
        found(moved(A, by=0.02), B),
        found(A, moved(B, score=-2e-4)),
        found(A, (B[0], B[1], 0)),
        found(A, B, ((20, 20, 30, 30), 0.5, 0)),
    ],
    ids=["missing", "box", "score", "label", "more"],
)
def test_what_nothing_explains_is_a_fault(other: Detections) -> None:
    assert compare_detections(found(A, B), other, RULE).faults
    assert compare_detections(other, found(A, B), RULE).faults


def test_at_the_threshold_either_may_be_missing() -> None:
    lowest: Row = (B[0], 0.05005, 1)
    agreement = compare_detections(found(A, lowest), found(A), RULE)
    assert not agreement.faults
    assert agreement.ties == (
        "only the detector has class 1 with score 0.05005 at (50.00, 50.00, 60.00, 60.00)",
    )


def test_the_last_place_of_a_full_list_may_be_another() -> None:
    third: Row = ((20, 20, 30, 30), 0.5, 0)
    fourth: Row = ((20, 60, 30, 70), 0.50005, 1)
    agreement = compare_detections(found(A, B, third), found(A, B, fourth), RULE)
    assert (len(agreement.ties), agreement.faults) == (2, ())
    worse: Row = ((20, 60, 30, 70), 0.4, 1)
    assert len(compare_detections(found(A, B, third), found(A, B, worse), RULE).faults) == 1


def test_the_last_candidate_of_a_level_may_be_another() -> None:
    last: Row = ((20, 20, 30, 30), 0.50004, 0)
    agreement = compare_detections(found(A, last), found(A), RULE, [0.7, 0.5])
    assert (len(agreement.ties), agreement.faults) == (1, ())
    assert compare_detections(found(A, last), found(A), RULE, [0.7, 0.4]).faults
    assert compare_detections(found(A, last), found(A), RULE).faults


def test_of_boxes_of_equal_score_either_may_suppress_the_other() -> None:
    agreement = compare_detections(found(A, B), found(NEAR_A, B), RULE)
    assert (len(agreement.ties), agreement.faults) == (2, ())
    # What the one suppresses, and the other does not, follows from it.
    beside: Row = ((3, 0, 14, 10), 0.4, 0)
    agreement = compare_detections(found(A, beside), found(NEAR_A), RULE)
    assert (len(agreement.ties), agreement.faults) == (3, ())


def test_a_better_box_that_overlaps_no_more_than_allowed_explains_nothing() -> None:
    beside: Row = ((5, 0, 15, 10), 0.4, 0)  # an IoU of 1/3 with A
    assert compare_detections(found(A, beside), found(A), RULE).faults
