"""Slices are scored as COCO scores areas."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.report.breakdown import break_down, neighbours, score_slices
from retina.evaluation.report.recall import recall_report
from retina.evaluation.report.scored_split import ScoredSplit

COCO_SIZES = (
    ("small", 0.0, 32.0**2),
    ("medium", 32.0**2, 96.0**2),
    ("large", 96.0**2, 1e10),
)


@pytest.mark.parametrize("seed", range(2))
def test_slices_by_area_are_cocos(seed: int, random_metrics: Callable[..., CocoMetrics]) -> None:
    metrics = random_metrics(seed)
    split, result = ScoredSplit.of(metrics), metrics.compute()
    areas = split.problem.boxes[:, 2] * split.problem.boxes[:, 3]

    slices = score_slices(split, COCO_SIZES, split.problem.truth_areas, areas)

    assert [one.AP for one in slices] == [result.APs, result.APm, result.APl]
    assert [one.AR for one in slices] == [result.ARs, result.ARm, result.ARl]
    assert sum(one.num_objects for one in slices) == int(split.is_object.sum())


def test_a_false_alarm_counts_only_where_an_object_like_it_would(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    """A wide object found at 0.8, a tall one at 0.7, and a wide false alarm at 0.9."""
    wide, tall, alarm = (
        (0.0, 0.0, 100.0, 20.0),
        (0.0, 100.0, 20.0, 100.0),
        (300.0, 0.0, 100.0, 20.0),
    )
    metrics = metrics_by_hand(
        [(1, 0, wide), (1, 0, tall)],
        [(1, 0, wide, 0.8), (1, 0, tall, 0.7), (1, 0, alarm, 0.9)],
    )

    by_aspect = {
        one.name: (one.num_objects, one.AP)
        for one in break_down(ScoredSplit.of(metrics)).aspect_ratio
    }

    assert by_aspect["over 3:1"] == (1, pytest.approx(0.5))
    assert by_aspect["under 1:3"] == (1, pytest.approx(1.0))
    assert by_aspect["2:3 – 3:2"] == (0, None)


def test_neighbours_are_other_objects_that_overlap(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    """Three in a row that overlap by a third, one apart, and a crowd region over all."""
    row = [(50.0 * place, 0.0, 100.0, 100.0) for place in range(3)]
    apart, crowd = (400.0, 0.0, 50.0, 50.0), (0.0, 0.0, 600.0, 400.0)
    metrics = metrics_by_hand(
        [*((1, place % 2, box) for place, box in enumerate(row)), (1, 0, apart), (1, 0, crowd)],
        [(1, 0, row[1], 0.9), (1, 0, apart, 0.8), (1, 1, (550.0, 400.0, 20.0, 20.0), 0.7)],
        crowds=[4],
    )
    split = ScoredSplit.of(metrics)

    of_objects, of_detections = neighbours(split)

    assert of_objects[:4].tolist() == [1, 2, 1, 0]
    assert of_detections.tolist() == [2, 0, 0]
    counts = {one.name: one.num_objects for one in break_down(split).crowding}
    assert counts == {
        "no neighbour": 1,
        "1 neighbour": 2,
        "2 neighbours": 1,
        "3 or more neighbours": 0,
    }


def test_recall_by_cap_is_cocos(random_metrics: Callable[..., CocoMetrics]) -> None:
    metrics = random_metrics(4)
    split, result = ScoredSplit.of(metrics), metrics.compute()

    report = recall_report(split)

    by_cap = {one.max_detections: one.recall for one in report.by_cap}
    assert (by_cap[1], by_cap[10], by_cap[100]) == (result.AR1, result.AR10, result.AR100)
    assert sum(one.num_objects for one in report.by_objects_per_image) == split.is_object.sum()


def test_recall_by_the_objects_of_an_image(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    boxes = [(60.0 * place, 0.0, 50.0, 50.0) for place in range(3)]
    metrics = metrics_by_hand(
        [(1, 0, boxes[0]), *((2, 0, box) for box in boxes)],
        [(1, 0, boxes[0], 0.9), (2, 0, boxes[0], 0.9)],
        num_images=3,
    )

    rows = recall_report(ScoredSplit.of(metrics)).by_objects_per_image

    assert [(one.low, one.high, one.num_images, one.num_objects) for one in rows] == [
        (1, 1, 1, 1),
        (2, 3, 1, 3),
    ]
    assert [one.recall for one in rows] == [1.0, pytest.approx(1 / 3)]


def test_without_objects_nothing_is_said(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    split = ScoredSplit.of(metrics_by_hand([], [(1, 0, (0.0, 0.0, 10.0, 10.0), 0.5)]))

    assert {(one.num_objects, one.AP, one.AR) for one in break_down(split).size} == {
        (0, None, None)
    }
    assert recall_report(split).by_cap == ()
