"""Label errors that detections tell: by hand, and AP when they are left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.report.label_errors import ap_without, find_label_errors
from retina.evaluation.report.scored_split import ScoredSplit

Box = tuple[float, float, float, float]


def place(number: int) -> Box:
    return (60.0 * (number % 10), 60.0 * (number // 10), 50.0, 50.0)


@pytest.fixture
def split(metrics_by_hand: Callable[..., CocoMetrics]) -> ScoredSplit:
    """Three of each class found at 0.5, then a label of the wrong class, and a missing box."""
    sure = [(1, number % 2, place(number)) for number in range(6)]
    return ScoredSplit.of(
        metrics_by_hand(
            [*sure, (1, 0, place(6)), (1, 0, place(7))],
            [
                *((image, label, box, 0.5) for image, label, box in sure),
                (1, 1, place(6), 0.9),  # annotated as 0
                (1, 0, place(6), 0.3),  # which it is hardly taken for
                (1, 1, place(8), 0.8),  # nothing is annotated
                (1, 1, place(8), 0.7),  # the same again
                (1, 1, place(9), 0.4),  # not sure enough
                (1, 1, place(7), 0.45),  # likewise
            ],
        )
    )


def test_confident_detections_speak_against_labels(split: ScoredSplit) -> None:
    errors = find_label_errors(split, split.matchings[0])

    assert [(one.kind, one.detection, one.annotation, one.score) for one in errors] == [
        ("wrong class", 6, 6, 0.9),
        ("missing box", 8, None, 0.8),
    ]


def test_ap_without_them_counts_neither_label_nor_detection(
    split: ScoredSplit, metrics_by_hand: Callable[..., CocoMetrics]
) -> None:
    errors = find_label_errors(split, split.matchings[0])
    sure = [(1, number % 2, place(number)) for number in range(6)]
    left = metrics_by_hand(
        [*sure, (1, 0, place(7))],
        [
            *((image, label, box, 0.5) for image, label, box in sure),
            (1, 1, place(8), 0.7),
            (1, 1, place(9), 0.4),
            (1, 1, place(7), 0.45),
        ],
    )

    assert ap_without(split, errors) == pytest.approx(left.compute().AP)


def test_an_object_that_its_own_class_finds_better_is_labelled_right(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    split = ScoredSplit.of(
        metrics_by_hand(
            [(1, 0, place(0)), (1, 0, place(1))],
            [(1, 0, place(0), 0.95), (1, 1, place(0), 0.9), (1, 0, place(1), 0.5)],
        )
    )
    assert find_label_errors(split, split.matchings[0]) == ()


def test_nothing_found_speaks_against_nothing(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    for found in ([], [(1, 1, place(3), 0.99)]):
        split = ScoredSplit.of(metrics_by_hand([(1, 0, place(0))], found))
        assert find_label_errors(split, split.matchings[0]) == ()
        assert ap_without(split, ()) == 0.0
