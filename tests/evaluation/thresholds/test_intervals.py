"""How sure a threshold is: resamples in the plainest way, and cases that leave no doubt."""

from __future__ import annotations

import numpy as np
import pytest

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
    rows, objects = random_rows(3)
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
    for times in draw_multiplicities(12, 50, seed=7):
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


def test_images_that_are_all_alike_leave_no_doubt() -> None:
    rows = [row for image in range(6) for row in ((0.9, True, image), (0.2, False, image))]
    outcomes = split(cell=(rows, [1] * 6), absent=([(0.9, False, 0)], [0] * 6))
    chosen = choose_thresholds(outcomes, BestF(), per_class=True)
    found = bootstrap_thresholds(outcomes, chosen, num_resamples=40, seed=0)
    cell, absent = found.classes
    assert cell.threshold == (0.9, 0.9)
    assert cell.precision == cell.recall == cell.f1 == (1, 1)
    assert cell.false_alarms_per_image == (0, 0)
    assert absent.threshold is None  # it is the common one
    assert absent.recall is None
    assert absent.precision == (0, 0)  # of the resamples that show it


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
