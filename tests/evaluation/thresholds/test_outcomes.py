"""From detections and annotations to what became of them, by class and image."""

from __future__ import annotations

import numpy as np
import pytest

from retina.evaluation.engines import ScoringProblem
from retina.evaluation.matching import match_detections
from retina.evaluation.thresholds import (
    BestF,
    choose_thresholds,
    match_split,
    thresholds_of_training,
)
from retina.structures import Categories

# Ids in no order: label 0 is category 3 inside a problem, label 1 is 1, label 2 is 2.
CATEGORIES = Categories(("late", "early", "between"), (90, 3, 17))


def problem_of(
    truth: list[tuple[int, int, float, bool]], found: list[tuple[int, int, float, float]]
) -> ScoringProblem:
    """Boxes of 10 × 10 pixels: (image, category, x, is crowd), (image, category, x, score)."""

    def boxes(xs: list[float]) -> np.ndarray:
        return np.array([[x, 0, 10, 10] for x in xs], dtype=np.float64).reshape(-1, 4)

    return ScoringProblem(
        num_images=2,
        num_categories=3,
        truth_images=np.array([row[0] for row in truth], dtype=np.int64),
        truth_categories=np.array([row[1] for row in truth], dtype=np.int64),
        truth_boxes=boxes([row[2] for row in truth]),
        truth_areas=np.full(len(truth), 100.0),
        truth_is_crowd=np.array([row[3] for row in truth], dtype=np.bool_),
        images=np.array([row[0] for row in found], dtype=np.int64),
        categories=np.array([row[1] for row in found], dtype=np.int64),
        boxes=boxes([row[2] for row in found]),
        scores=np.array([row[3] for row in found], dtype=np.float64),
        max_detections=(1, 10, 100),
    )


PROBLEM = problem_of(
    [(1, 3, 0, False), (1, 1, 50, False), (2, 3, 0, False), (2, 3, 200, True)],
    [
        (1, 3, 1, 0.6),  # finds
        (1, 3, 0, 0.4),  # finds nothing more: a duplicate
        (2, 3, 4, 0.9),  # IoU 0.43
        (2, 3, 200, 0.8),  # in the crowd region
        (1, 1, 50, 0.7),
        (2, 2, 0, 0.5),
    ],
)


def test_by_hand() -> None:
    outcomes = match_split(PROBLEM, CATEGORIES, iou=0.5)
    late, early, between = outcomes.classes
    assert outcomes.names == CATEGORIES.names
    assert late.scores.tolist() == [0.9, 0.6, 0.4]  # that of the crowd region counts nowhere
    assert late.is_true.tolist() == [False, True, False]
    assert late.images.tolist() == [1, 0, 0]
    assert late.objects.tolist() == [1, 1]
    assert (early.is_true.tolist(), early.objects.tolist()) == ([True], [1, 0])
    assert (between.is_true.tolist(), between.num_objects) == ([False], 0)
    assert outcomes.all_classes.scores.tolist() == [0.9, 0.7, 0.6, 0.5, 0.4]
    assert outcomes.all_classes.objects.tolist() == [2, 1]
    assert match_split(PROBLEM, CATEGORIES, iou=0.4).classes[0].is_true.tolist() == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.6, 0.61, 0.95])
def test_counts_are_those_of_matching_what_is_shown(threshold: float) -> None:
    """Leaving the others out first gives the same: one matching has every operating point."""
    outcomes = match_split(PROBLEM, CATEGORIES, iou=0.5).all_classes
    keep = PROBLEM.scores >= threshold
    rows = [
        (int(image), int(category), float(box[0]), float(score))
        for image, category, box, score, is_kept in zip(
            PROBLEM.images, PROBLEM.categories, PROBLEM.boxes, PROBLEM.scores, keep, strict=True
        )
        if is_kept
    ]
    truth = [(1, 3, 0.0, False), (1, 1, 50.0, False), (2, 3, 0.0, False), (2, 3, 200.0, True)]
    (again,) = match_detections(problem_of(truth, rows), (0.5,))
    num_shown = outcomes.num_shown(threshold)
    assert outcomes.is_true[:num_shown].sum() == again.is_true.sum()
    assert (~outcomes.is_true[:num_shown]).sum() == again.is_false.sum()


def test_classes_of_one_name_are_told_apart() -> None:
    twins = Categories(("cat", "cat", "dog"), (1, 2, 3))
    assert match_split(PROBLEM, twins, iou=0.5).names == ("cat (id 1)", "cat (id 2)", "dog")


def test_a_training_keeps_one_number_and_what_it_reached() -> None:
    kept = thresholds_of_training(PROBLEM, CATEGORIES)
    assert kept is not None
    outcomes = match_split(PROBLEM, CATEGORIES, iou=0.5)
    best = choose_thresholds(outcomes, BestF(), per_class=False).common.point
    assert (best.true, best.false) == (2, 1)
    assert kept.common == best.threshold == 0.6
    assert kept.per_class is None
    assert kept.origin is not None
    assert kept.origin.rule == "best F1 of all classes together"
    assert kept.origin.date is None  # the same training makes the same file
    assert kept.origin.reached.precision == pytest.approx(2 / 3)
    assert kept.origin.per_class is not None
    assert [one.recall for one in kept.origin.per_class] == [0.5, 1.0, None]


def test_a_training_that_finds_nothing_keeps_none() -> None:
    assert thresholds_of_training(problem_of([(1, 1, 0, False)], []), CATEGORIES) is None
    assert thresholds_of_training(problem_of([], [(1, 1, 0, 0.5)]), CATEGORIES) is None
