"""The confusion matrix adds up to the counts to the last one, and is what its words say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.matching import Matching
from retina.evaluation.report.confusion import (
    BACKGROUND,
    Confusion,
    confusion_matrix,
    find_claims,
)
from retina.evaluation.report.operating_points import Counts, count_at_stops
from retina.evaluation.report.scored_split import STOPS, ScoredSplit


def matrix(split: ScoredSplit, matching: Matching) -> tuple[Counts, Confusion]:
    counts = count_at_stops(split, matching)
    return counts, confusion_matrix(split, counts, find_claims(split, matching))


def confused_plainly(
    split: ScoredSplit, matching: Matching, score: float
) -> Counter[tuple[int, int]]:
    """The cells at one score, object by object."""
    problem, scores = split.problem, split.problem.scores
    left = [row for row in np.flatnonzero(matching.is_false).tolist() if scores[row] >= score]
    cells: Counter[tuple[int, int]] = Counter()
    objects = []
    for number in np.flatnonzero(split.is_object).tolist():
        finder = int(matching.detection[number])
        label = int(split.truth_labels[number])
        if finder >= 0 and scores[finder] >= score:
            cells[label, label] += 1
        else:
            objects.append(number)
    wanted: dict[int, list[int]] = {}
    for row in left:
        others = [
            number
            for number in objects
            if problem.truth_images[number] == problem.images[row]
            and split.truth_labels[number] != split.labels[row]
        ]
        if others:
            ious = mask.iou(problem.boxes[[row]], problem.truth_boxes[others], [0] * len(others))[0]
            if ious.max() >= matching.iou:
                wanted.setdefault(others[int(np.argmax(ious))], []).append(row)
    for number in objects:
        rows = wanted.get(number, [])
        if rows:
            winner = max(rows, key=lambda row: (scores[row], -row))
            left.remove(winner)
            cells[int(split.truth_labels[number]), int(split.labels[winner])] += 1
        else:
            cells[int(split.truth_labels[number]), BACKGROUND] += 1
    for row in left:
        cells[BACKGROUND, int(split.labels[row])] += 1
    return cells


@pytest.mark.parametrize("seed", range(4))
def test_the_cells_are_those_of_the_plain_rule(
    seed: int, random_split: Callable[..., ScoredSplit]
) -> None:
    split = random_split(seed)

    for matching in split.matchings:
        _, confusion = matrix(split, matching)
        num_confused = 0
        for stop in (0, 7, 30, 55, 90, 100):
            cells = {
                (cell.truth, cell.detected): cell.counts[stop]
                for cell in confusion.cells
                if cell.counts[stop]
            }
            assert cells == confused_plainly(split, matching, STOPS[stop])
            num_confused += sum(
                count for key, count in cells.items() if BACKGROUND not in key and key[0] != key[1]
            )
        assert num_confused > 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 6), per_image=st.integers(0, 30))
def test_rows_and_columns_add_up_to_the_counts_at_every_stop(
    seed: int, num_classes: int, per_image: int, random_split: Callable[..., ScoredSplit]
) -> None:
    split = random_split(seed, num_classes=num_classes, num_images=6, per_image=per_image)

    for matching in split.matchings:
        counts, confusion = matrix(split, matching)
        table = np.zeros((num_classes + 1, num_classes + 1, len(STOPS)), dtype=np.int64)
        for cell in confusion.cells:
            table[cell.truth, cell.detected] = cell.counts  # background is the last
        for label in range(num_classes):
            assert (table[label].sum(axis=0) == counts.tp[label] + counts.fn[label]).all()
            assert (table[:, label].sum(axis=0) == counts.tp[label] + counts.fp[label]).all()
            assert (table[label, label] == counts.tp[label]).all()
        assert not table[BACKGROUND, BACKGROUND].any()
        assert (table >= 0).all()
        assert confusion.num_left_out == 0


def test_an_object_goes_to_the_highest_score_until_its_own_class_finds_it(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    """Class 0, seen as class 1 at 0.8 and 0.6, and as itself at 0.4; a duplicate at 0.3."""
    box = (10.0, 10.0, 20.0, 20.0)
    metrics = metrics_by_hand(
        [(1, 0, box)],
        [(1, 1, box, 0.8), (1, 1, box, 0.6), (1, 0, box, 0.4), (1, 0, box, 0.3)],
    )
    split = ScoredSplit.of(metrics)

    _, confusion = matrix(split, split.matchings[0])

    cells = {(cell.truth, cell.detected): cell.counts for cell in confusion.cells}
    assert cells == {
        (0, 0): (*[1] * 41, *[0] * 60),
        (0, 1): (*[0] * 41, *[1] * 40, *[0] * 20),
        (0, BACKGROUND): (*[0] * 81, *[1] * 20),
        (BACKGROUND, 0): (*[1] * 31, *[0] * 70),
        (BACKGROUND, 1): (*[2] * 41, *[1] * 20, *[0] * 40),
    }


def test_of_many_classes_the_costliest_confusions_are_kept(
    random_split: Callable[..., ScoredSplit],
) -> None:
    split = random_split(1, num_classes=120, num_images=80)
    matching = split.matchings[0]

    counts, confusion = matrix(split, matching)

    claims = find_claims(split, matching)
    costs = Counter(
        (int(split.truth_labels[annotation]), int(split.labels[detection]))
        for detection, annotation in zip(claims.detections, claims.annotations, strict=True)
    )
    assert len(costs) > 50
    assert len(confusion.cells) == 50
    assert confusion.num_left_out == len(costs) - 50
    kept = {(cell.truth, cell.detected): sum(cell.counts) for cell in confusion.cells}
    assert all(costs[key] == total for key, total in kept.items())
    assert sorted(kept.values()) == sorted(costs.values())[-50:]
    assert counts.tp.any()
