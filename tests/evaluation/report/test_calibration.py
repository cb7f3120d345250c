"""Reliability and temperature: a case by hand, and what the best temperature must be."""

from __future__ import annotations

from collections.abc import Callable

import hotcoco
import numpy as np
import pytest

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.report.calibration import (
    best_temperature,
    calibration,
    calibration_error,
    reliability,
)
from retina.evaluation.report.scored_split import ScoredSplit

BOX = (0.0, 0.0, 10.0, 10.0)
OTHER = (100.0, 0.0, 10.0, 10.0)


def test_a_case_by_hand(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    metrics = metrics_by_hand(
        [(1, 0, BOX), (1, 1, BOX), (1, 1, OTHER)],
        [(1, 0, BOX, 0.8), (1, 0, OTHER, 0.84), (1, 1, BOX, 1.0), (1, 1, OTHER, 0.2)],
    )
    split = ScoredSplit.of(metrics)

    found = calibration(split, split.matchings[0])

    assert found is not None
    filled = {
        one.low: (one.count, one.confidence, one.precision) for one in found.bins if one.count
    }
    assert filled == {
        0.8: (2, pytest.approx(0.82), 0.5),
        0.9: (1, 1.0, 1.0),
        0.2: (1, pytest.approx(0.2), 1.0),
    }
    assert found.ece == pytest.approx((2 * 0.32 + 1 * 0.0 + 1 * 0.8) / 4)
    assert [one.count for one in found.bins if one.confidence is None] == [0] * 7


def test_the_bins_are_those_of_hotcoco() -> None:
    random = np.random.default_rng(0)
    scores, is_true = random.random(1000), random.random(1000) < 0.4

    expected = hotcoco.metrics.calibration_error(scores, is_true, 10)[0]

    assert calibration_error(reliability(scores, is_true)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_scores_that_were_sharpened_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, 40_000)
    is_true = random.random(40_000) < 1 / (1 + np.exp(-logits))

    found = best_temperature(1 / (1 + np.exp(-logits * temperature)), is_true)

    assert found == pytest.approx(temperature, rel=0.03)


def test_the_temperature_has_the_least_log_loss(random_split: Callable[..., ScoredSplit]) -> None:
    split = random_split(3)
    scores, is_true = split.problem.scores, split.matchings[0].is_true
    inner = np.clip(scores, 1e-6, 1 - 1e-6)

    def loss(temperature: float) -> float:
        scaled = 1 / (1 + np.exp(-np.log(inner / (1 - inner)) / temperature))
        return float(-np.log(np.where(is_true, scaled, 1 - scaled)).mean())

    found = best_temperature(scores, is_true)

    assert found is not None
    assert all(loss(found) <= loss(found * factor) for factor in (0.8, 0.98, 1.02, 1.2))


@pytest.mark.parametrize("is_right", [False, True])
def test_scores_that_are_all_right_or_all_wrong_have_no_temperature(is_right: bool) -> None:
    assert best_temperature(np.array([0.3, 0.9]), np.array([is_right, is_right])) is None


@pytest.mark.parametrize("is_good", [False, True])
def test_at_an_end_of_the_search_no_temperature_mends_the_scores(is_good: bool) -> None:
    scores = np.repeat([0.1, 0.9], 1000)
    is_true = np.repeat([False, True], 1000)
    if not is_good:  # they say nothing: the hotter the better
        is_true = np.tile([False, True], 1000)
    assert best_temperature(scores, is_true) is None


def test_logits_are_no_probabilities(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    split = ScoredSplit.of(metrics_by_hand([(1, 0, BOX)], [(1, 0, BOX, 3.5)]))
    assert calibration(split, split.matchings[0]) is None
