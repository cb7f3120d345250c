"""The thresholds that each rule chooses: by hand, and against every threshold tried."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from retina.errors import UserError
from retina.evaluation.thresholds import (
    BestF,
    LeastCost,
    LeastPrecision,
    LeastRecall,
    MostFalseAlarms,
    OperatingPoint,
    Rule,
    SplitOutcomes,
    choose_thresholds,
    count_at,
)
from tests.evaluation.thresholds.cases import (  # type: ignore[import-not-found]
    every_point,
    random_rows,
    split,
)

# Ten objects in four images. From the top: found, found, false, found, false, found, false, false.
ROWS = [
    (0.95, True, 0),
    (0.9, True, 1),
    (0.8, False, 1),
    (0.7, True, 2),
    (0.55, False, 2),
    (0.5, True, 3),
    (0.3, False, 3),
    (0.2, False, 3),
]
OBJECTS = [3, 3, 2, 2]

BY_HAND = [
    # F1 is 2 TP / (shown + objects): 2/11, 4/12, 6/14, 8/16.
    (BestF(), 0.5, (4, 2)),
    # β = 0.1: nearly the precision; 2 of 2 and no more.
    (BestF(0.1), 0.9, (2, 0)),
    (BestF(10), 0.5, (4, 2)),
    (LeastPrecision(0.75), 0.7, (3, 1)),
    (LeastPrecision(0.76), 0.9, (2, 0)),
    (LeastPrecision(2 / 3), 0.5, (4, 2)),
    (LeastRecall(0.1), 0.9, (2, 0)),  # 0.95 and 0.9 are both right: the first one would do
    (LeastRecall(0.3), 0.7, (3, 1)),
    (LeastRecall(0.4), 0.5, (4, 2)),
    (MostFalseAlarms(0), 0.9, (2, 0)),
    (MostFalseAlarms(0.25), 0.7, (3, 1)),
    (MostFalseAlarms(0.49), 0.7, (3, 1)),
    (MostFalseAlarms(5), 0.5, (4, 2)),
    # 10 missed at nothing; 8, 1 + 7, 2 + 6 false alarms and missed: all the same from 0.9 on.
    (LeastCost(1, 1), 0.9, (2, 0)),
    (LeastCost(1, 2), 0.5, (4, 2)),
    (LeastCost(1, 0), 1.0, (0, 0)),
    (LeastCost(0, 1), 0.5, (4, 2)),
]


@pytest.mark.parametrize(("rule", "threshold", "counts"), BY_HAND, ids=str)
def test_by_hand(rule: Rule, threshold: float, counts: tuple[int, int]) -> None:
    if isinstance(rule, LeastRecall) and rule.share == 0.1:
        threshold, counts = 0.95, (1, 0)  # of equal precision the highest threshold
    chosen = choose_thresholds(split(cell=(ROWS, OBJECTS)), rule, per_class=True)
    (one,) = chosen.classes
    assert one.source == "own"
    assert one.point == OperatingPoint(threshold, *counts, 10, 4)
    assert chosen.common == one  # of a single class it is the same
    assert chosen.total == OperatingPoint(None, *counts, 10, 4)
    assert chosen.values == (threshold,)


def f_beta(beta: float) -> Callable[[OperatingPoint], float]:
    def value(point: OperatingPoint) -> float:
        if not point.true:
            return -math.inf
        precision, recall = point.precision, point.recall
        assert precision is not None
        assert recall is not None
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)

    return value


def at_least(share: float, of: str, then: str) -> Callable[[OperatingPoint], float]:
    def value(point: OperatingPoint) -> float:
        if not point.true or getattr(point, of) < share:
            return -math.inf
        return float(getattr(point, then))

    return value


PLAIN: list[tuple[Rule, Callable[[OperatingPoint], float]]] = [
    (BestF(), f_beta(1)),
    (BestF(0.5), f_beta(0.5)),
    (BestF(2), f_beta(2)),
    (LeastPrecision(0.8), at_least(0.8, "precision", "recall")),
    (LeastRecall(0.5), at_least(0.5, "recall", "precision")),
    (MostFalseAlarms(1), lambda p: float(p.recall or 0) if p.false <= p.num_images else -math.inf),
    (LeastCost(2, 3), lambda p: -(2.0 * p.false + 3.0 * p.missed)),
]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rule", "value"), PLAIN, ids=[str(rule) for rule, _ in PLAIN])
def test_no_threshold_is_better(
    rule: Rule, value: Callable[[OperatingPoint], float], seed: int
) -> None:
    rows, objects = random_rows(seed)
    outcomes = split(cell=(rows, objects))
    (one,) = choose_thresholds(outcomes, rule, per_class=True).classes
    points = every_point(outcomes.classes[0])
    best = max(map(value, points))
    if best == -math.inf:
        assert isinstance(rule, LeastPrecision)
        assert one.source == "nearest"
        assert one.point.precision == max(point.precision or 0 for point in points)
        return
    assert one.source == "own"
    assert value(one.point) == pytest.approx(best, abs=1e-12)
    # Of equally good ones the highest: what is shown above it is worse.
    higher = [p for p in points if p.num_shown < one.point.num_shown]
    assert all(value(point) < best - 1e-12 for point in higher)
    assert one.point == count_at(outcomes.classes[0], one.point.threshold or 0)


def test_detections_of_one_score_stand_or_fall_together() -> None:
    rows = [(0.9, True, 0), (0.5, True, 0), (0.5, False, 0), (0.5, False, 0), (0.4, True, 0)]
    outcomes = split(cell=(rows, [3]))
    (one,) = choose_thresholds(outcomes, LeastPrecision(0.55), per_class=True).classes
    # 2 of 2 cannot be had: with 0.5 come two false alarms, and 0.4 makes 3 of 5.
    assert (one.point.threshold, one.point.true, one.point.false) == (0.4, 3, 2)


def test_classes_have_their_own_and_one_for_all_lies_between() -> None:
    sure = [(0.9, True, 0), (0.85, True, 1), (0.7, False, 0), (0.6, False, 1)]
    shy = [(0.4, True, 0), (0.3, True, 1), (0.2, False, 1)]
    outcomes = split(sure=(sure, [1, 1]), shy=(shy, [1, 1]))
    own = choose_thresholds(outcomes, BestF(), per_class=True)
    assert own.values == (0.8, 0.3)  # 0.8 shows what 0.85 does, and nothing else
    assert own.total == OperatingPoint(None, 4, 0, 4, 2)
    common = choose_thresholds(outcomes, BestF(), per_class=False)
    assert common.common.point == OperatingPoint(0.3, 4, 2, 4, 2)
    assert common.values == (0.3, 0.3)
    assert [one.source for one in common.classes] == ["common", "common"]
    assert [one.point.false for one in common.classes] == [2, 0]
    assert common.total.false == 2


def test_a_class_that_tells_nothing_gets_the_common_one() -> None:
    outcomes = split(
        cell=(ROWS, OBJECTS),
        absent=([(0.6, False, 0)], [0, 0, 0, 0]),
        never_found=([(0.52, False, 1)], [1, 0, 0, 0]),
        unseen=([], [0, 2, 0, 0]),
    )
    chosen = choose_thresholds(outcomes, BestF(), per_class=True)
    common = chosen.common.point.threshold
    assert [one.source for one in chosen.classes] == [
        "own", "no objects", "nothing found", "nothing found",
    ]  # fmt: skip
    assert chosen.values[1:] == (common, common, common)
    assert chosen.classes[1].point == OperatingPoint(common, 0, 1, 0, 4)
    assert chosen.classes[1].point.recall is None
    assert chosen.classes[3].point.precision is None
    # By cost, showing nothing of what is never right is a choice.
    costs = choose_thresholds(outcomes, LeastCost(1, 1), per_class=True)
    assert [one.source for one in costs.classes] == ["own", "no objects", "own", "own"]
    assert costs.values[2:] == (1.0, 1.0)


def test_a_demand_that_no_score_meets_gets_the_nearest() -> None:
    rows = [(0.9, False, 0), (0.8, True, 0), (0.7, False, 1), (0.6, True, 1), (0.5, False, 1)]
    outcomes = split(cell=(rows, [2, 2]))
    (one,) = choose_thresholds(outcomes, LeastPrecision(0.9), per_class=True).classes
    assert one.source == "nearest"
    # 1 of 2 and 2 of 4 are equally precise: the one that finds more.
    assert one.point == OperatingPoint(0.6, 2, 2, 4, 2)
    (one,) = choose_thresholds(outcomes, LeastRecall(0.9), per_class=True).classes
    assert (one.source, one.point.threshold, one.point.recall) == ("nearest", 0.6, 0.5)


def test_a_false_alarm_of_score_1_cannot_be_left_out() -> None:
    outcomes = split(cell=([(1.0, False, 0), (1.0, True, 0), (0.5, True, 0)], [2]))
    (one,) = choose_thresholds(outcomes, MostFalseAlarms(0), per_class=True).classes
    assert (one.source, one.point.threshold, one.point.false) == ("nearest", 0.5, 1)


@pytest.mark.parametrize("per_class", [True, False])
def test_without_objects_or_detections_there_is_nothing_to_choose(per_class: bool) -> None:
    nothing: SplitOutcomes = split(cell=([], [1, 2]))
    with pytest.raises(UserError, match=r"no detection has found an object at IoU 0\.5"):
        choose_thresholds(nothing, BestF(), per_class=per_class)
    empty = split(cell=([(0.5, False, 0)], [0, 0]))
    with pytest.raises(UserError, match="the annotations have no object"):
        choose_thresholds(empty, LeastCost(1, 1), per_class=per_class)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BestF(0), "β is 0: give a number above 0"),
        (lambda: BestF(np.nan), "β is nan"),
        (lambda: LeastPrecision(95), "a precision of 95: give a number above 0, up to 1"),
        (lambda: LeastRecall(-0.1), "a recall of -0.1"),
        (lambda: MostFalseAlarms(-1), "-1 false alarms per image: give a number of at least 0"),
        (lambda: LeastCost(0, 0), "not both 0"),
        (lambda: LeastCost(-1, 1), "costs -1"),
    ],
)
def test_senseless_demands_are_refused(make: Callable[[], Rule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
