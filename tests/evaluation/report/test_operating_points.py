"""Counts at every stop against a matching that is made anew of what counts there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.report.operating_points import (
    best_score,
    count_at_stops,
    operating_points,
)
from retina.evaluation.report.scored_split import ScoredSplit


def counted_plainly(split: ScoredSplit, label: int, iou: float, score: float) -> tuple[int, ...]:
    """TP, FP and FN of a class: greedy by score, with crowd regions that absorb."""
    problem = split.problem
    tp = fp = fn = 0
    for image in range(1, problem.num_images + 1):
        rows = [
            row
            for row in np.argsort(-problem.scores, kind="stable").tolist()
            if problem.images[row] == image
            and split.labels[row] == label
            and problem.scores[row] >= score
        ]
        objects = np.flatnonzero(
            (problem.truth_images == image) & (split.truth_labels == label)
        ).tolist()
        crowd = problem.truth_is_crowd[objects].tolist()
        overlaps = np.zeros((len(rows), len(objects)))
        if rows and objects:
            overlaps = mask.iou(problem.boxes[rows], problem.truth_boxes[objects], crowd)
        free = [at for at, is_crowd in enumerate(crowd) if not is_crowd]
        for own in overlaps:
            best = max(free, key=lambda at: own[at], default=None)  # type: ignore[arg-type]
            if best is not None and own[best] >= iou:
                tp += 1
                free.remove(best)
            elif not any(is_crowd and own[at] >= iou for at, is_crowd in enumerate(crowd)):
                fp += 1
        fn += len(free)
    return tp, fp, fn


@pytest.mark.parametrize("seed", range(3))
def test_the_counts_are_those_of_a_matching_of_what_counts(
    seed: int, random_split: Callable[..., ScoredSplit]
) -> None:
    split = random_split(seed)

    for matching in split.matchings:
        counts = count_at_stops(split, matching)
        assert counts.tp.any()
        for stop in (0, 1, 29, 50, 83, 100):
            for label in range(split.num_classes):
                expected = counted_plainly(split, label, matching.iou, stop / 100)
                found = tuple(int(one[label, stop]) for one in (counts.tp, counts.fp, counts.fn))
                assert found == expected


def test_a_detection_counts_at_its_own_score(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    metrics = metrics_by_hand(
        [(1, 0, box), (1, 1, box)], [(1, 0, box, 0.29), (1, 0, box, 0.1), (1, 1, box, 1.0)]
    )
    split = ScoredSplit.of(metrics)

    counts = count_at_stops(split, split.matchings[0])
    points = operating_points(counts)

    assert [(points[at].tp, points[at].fp, points[at].fn) for at in (0, 10, 11, 29, 30, 100)] == [
        (2, 1, 0),
        (2, 1, 0),
        (2, 0, 0),
        (2, 0, 0),
        (1, 0, 1),
        (1, 0, 1),
    ]
    assert [point.score for point in points][29] == 0.29
    assert best_score(counts) == 0.29  # the highest of the stops with these counts


@pytest.mark.parametrize("has_objects", [False, True])
def test_nothing_detected_has_no_best_score(
    has_objects: bool, metrics_by_hand: Callable[..., CocoMetrics]
) -> None:
    objects = [(1, 0, (0.0, 0.0, 10.0, 10.0))] if has_objects else []
    split = ScoredSplit.of(metrics_by_hand(objects, []))

    counts = count_at_stops(split, split.matchings[0])

    assert counts.fn.sum(axis=0).tolist() == [len(objects)] * 101
    assert not counts.tp.any()
    assert not counts.fp.any()
    assert best_score(counts) is None
