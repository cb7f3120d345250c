"""Thresholds as numbers, and what they count in resamples."""

from __future__ import annotations

import numpy as np
import pytest

from retina.evaluation.thresholds.candidates import find_candidates
from tests.evaluation.thresholds.cases import (  # type: ignore[import-not-found]
    outcomes,
    random_rows,
)


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ((0.6182734, 0.41), 0.6),
        ((0.6182734, 0.61), 0.618),
        ((0.8, 0.7), 0.8),  # a score that is short itself
        ((0.0501,), 0.05),
        ((0.5, 0.4999999999999999), 0.5),
        ((1.0, 0.9), 1.0),
        ((0.30000000000000004, 0.3), 0.30000000000000004),  # neighbours in float64
        ((float(np.float32(0.7)), float(np.float32(0.69999993))), 0.69999998),
    ],
)
def test_the_shortest_number_that_tells_two_scores_apart(
    scores: tuple[float, ...], threshold: float
) -> None:
    rows = [(score, number == 0, 0) for number, score in enumerate(scores)]
    candidates = find_candidates(outcomes(rows, [1]))
    found = candidates.threshold(len(candidates.last) - 1)
    assert found == threshold
    assert [score >= found for score in scores] == [True, *[False] * (len(scores) - 1)]


def test_only_where_something_is_found_is_a_candidate() -> None:
    rows = [(0.9, False, 0), (0.8, True, 0), (0.7, False, 0), (0.6, True, 0), (0.6, False, 0)]
    candidates = find_candidates(outcomes(rows, [2]))
    assert candidates.last.tolist() == [-1, 1, 4]
    counts = candidates.counts()
    assert counts.true[:, 0].tolist() == [0, 1, 2]
    assert counts.false[:, 0].tolist() == [0, 1, 3]
    assert counts.num_objects.tolist() == [2]


def test_no_detections() -> None:
    candidates = find_candidates(outcomes([], [2, 0]))
    assert candidates.last.tolist() == [-1]
    assert candidates.threshold(0) == 1.0
    counts = candidates.counts(np.array([[2, 0], [0, 2], [1, 1]]))
    assert counts.true.tolist() == counts.false.tolist() == [[0, 0, 0]]
    assert counts.num_objects.tolist() == [4, 0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_an_image_drawn_twice_counts_twice(seed: int) -> None:
    rows, objects = random_rows(seed, num=40, num_images=5)
    candidates = find_candidates(outcomes(rows, objects))
    times = np.array([[1, 1, 1, 1, 1], [2, 0, 0, 3, 0], [0, 0, 0, 0, 5]])
    counts = candidates.counts(times)
    for number, draw in enumerate(times):
        repeated = [row for row in rows for _ in range(draw[row[2]])]
        for place in range(1, len(candidates.last)):
            shown = [row for row in repeated if row[0] >= candidates.threshold(place)]
            assert counts.true[place, number] == sum(row[1] for row in shown)
            assert counts.false[place, number] == sum(not row[1] for row in shown)
        assert counts.num_objects[number] == np.dot(draw, objects)
