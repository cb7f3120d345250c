"""How sure a threshold is: resamples in the plainest way, and cases that leave no doubt."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from retina.evaluation.bootstrap import draw_multiplicities, interval
from retina.evaluation.thresholds import (
    BestF,
    LeastCost,
    LeastRecall,
    Rule,
    bootstrap_thresholds,
    choose_thresholds,
    intervals,
)
from retina.evaluation.thresholds.candidates import find_candidates
from tests.evaluation.thresholds.cases import (  # type: ignore[import-not-found]
    Row,
    random_rows,
    split,
)


def drawn(rows: list[Row], objects: list[int], times: np.ndarray) -> tuple[list[Row], list[int]]:
    """The images of a resample, those that come twice as two images."""
    images = np.repeat(np.arange(len(times)), times)
    found = [
        (score, is_true, place)
        for place, image in enumerate(images)
        for score, is_true, own in rows
        if own == image
    ]
    return found, [objects[image] for image in images]


@pytest.mark.parametrize("rule", [BestF(), LeastRecall(0.6), LeastCost(1, 2)], ids=str)
def test_intervals_are_those_of_choosing_on_every_resample(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "_BLOCK_ELEMENTS", 100)  # a few resamples at a time
    rows, objects = random_rows(3, num_images=24)
    outcomes = split(cell=(rows, objects))
    chosen = choose_thresholds(outcomes, rule, per_class=True)
    found = bootstrap_thresholds(outcomes, chosen, num_resamples=50, seed=7)
    kept = chosen.values[0]
    candidates = find_candidates(outcomes.classes[0])
    number = {
        outcomes.classes[0].scores[last]: candidates.threshold(row)
        for row, last in enumerate(candidates.last.tolist())
    }
    values: dict[str, list[float]] = {name: [] for name in ("threshold", "precision", "recall")}
    for times in draw_multiplicities(24, 50, seed=7):
        sample, their_objects = drawn(rows, objects, times)
        again = split(cell=(sample, their_objects))
        ours = choose_thresholds(again, rule, per_class=True)
        # As a number it is that which tells scores apart in the whole set.
        lowest = min(row[0] for row in sample if row[0] >= ours.values[0])
        values["threshold"].append(number[lowest])
        shown = [row for row in sample if row[0] >= kept]
        true = sum(row[1] for row in shown)
        values["precision"].append(true / len(shown))
        values["recall"].append(true / again.classes[0].num_objects)
    (own,) = found.classes
    assert own.precision == interval(values["precision"], 0.95)
    assert own.recall == interval(values["recall"], 0.95)
    assert own.threshold == interval(values["threshold"], 0.95)
    assert found.common.recall == own.recall
    assert found.total.precision == own.precision


def wilson(hits: int, draws: int) -> tuple[float, float]:
    peer = binomtest(hits, draws).proportion_ci(0.95, method="wilson")
    return pytest.approx((peer.low, peer.high), abs=1e-6)


def test_images_that_are_all_alike_are_no_certainty() -> None:
    """No two resamples differ, but six images do not tell that each further one is like them."""
    rows = [row for image in range(6) for row in ((0.9, True, image), (0.2, False, image))]
    outcomes = split(cell=(rows, [1] * 6), absent=([(0.9, False, 0)], [0] * 6))
    chosen = choose_thresholds(outcomes, BestF(), per_class=True)
    found = bootstrap_thresholds(outcomes, chosen, num_resamples=40, seed=0)
    cell, absent = found.classes
    assert cell.threshold is None
    assert cell.precision == cell.recall == wilson(6, 6)
    assert cell.f1 == pytest.approx((2 * 0.609666 / 1.609666, 1.0), abs=1e-6)
    low, high = cell.false_alarms_per_image
    assert (low, high) == (0, pytest.approx(1.959964**2 / 6))  # the score test of a count of none
    assert absent.threshold is None  # it is the common one
    assert absent.recall is None
    assert absent.precision == wilson(0, 1)


def test_many_images_that_are_all_alike() -> None:
    """The shares are of as many draws; the score would be chosen again."""
    rows = [(0.9, True, image) for image in range(100)]
    outcomes = split(cell=(rows, [1] * 100))
    chosen = choose_thresholds(outcomes, BestF(), per_class=True)
    (cell,) = bootstrap_thresholds(outcomes, chosen, num_resamples=40, seed=0).classes
    assert cell.threshold == (0.9, 0.9)
    assert cell.precision == cell.recall == wilson(100, 100)


def test_a_class_with_two_objects_among_many_images() -> None:
    rows = [(0.9, True, image) for image in range(100)]
    outcomes = split(cell=(rows, [1] * 100), rare=([(0.8, True, 3), (0.7, True, 5)], [0] * 100))
    objects = outcomes.classes[1].objects
    objects[[3, 5]] = 1
    outcomes.all_classes.objects[[3, 5]] += 1
    chosen = choose_thresholds(outcomes, BestF(), per_class=True)
    rare = bootstrap_thresholds(outcomes, chosen, num_resamples=200, seed=0).classes[1]
    assert rare.precision == rare.recall == wilson(2, 2)


def test_fewer_images_are_less_sure() -> None:
    rows, objects = random_rows(5, num=400, num_images=100)

    def width(num_images: int) -> float:
        some = [row for row in rows if row[2] < num_images]
        outcomes = split(cell=(some, objects[:num_images]))
        chosen = choose_thresholds(outcomes, BestF(), per_class=True)
        (own,) = bootstrap_thresholds(outcomes, chosen, num_resamples=200, seed=0).classes
        assert own.recall is not None
        return own.recall[1] - own.recall[0]

    assert 1.5 * width(100) < width(20)
