"""How many objects are needed to say what a threshold reaches."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from retina.evaluation.thresholds import OperatingPoint
from retina.evaluation.thresholds.sufficiency import (
    count_interval,
    draws_needed,
    half_width,
    objects_needed,
    wilson_interval,
)


@pytest.mark.parametrize(("hits", "draws"), [(0, 10), (3, 10), (50, 100), (99, 100), (700, 1000)])
def test_the_width_is_that_of_wilsons_interval(hits: int, draws: int) -> None:
    peer = binomtest(hits, draws).proportion_ci(0.95, method="wilson")
    assert half_width(hits / draws, draws) == pytest.approx((peer.high - peer.low) / 2, abs=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.84, 1.0])
def test_one_draw_less_is_too_few(share: float) -> None:
    needed = draws_needed(share)
    assert half_width(share, needed) <= 0.05 < half_width(share, needed - 1)


def test_the_numbers_that_statistics_books_have() -> None:
    assert 380 <= draws_needed(0.5) <= 385  # 384 by the normal distribution
    assert draws_needed(1.0) == 35  # Wilson: z² (1 / 2w - 1)


def test_enough_and_too_few_objects() -> None:
    many = OperatingPoint(0.5, 800, 200, 1000, 50)
    assert objects_needed(many, ("precision", "recall")) is None
    few = OperatingPoint(0.5, 40, 10, 50, 50)  # precision and recall 0.8, 50 shown of 50
    low = binomtest(40, 50).proportion_ci(0.95, method="wilson").low
    assert low == pytest.approx(wilson_interval(0.8, 50)[0], abs=1e-6)
    assert objects_needed(few, ("precision", "recall")) == draws_needed(low)
    # Precision 0.5 is a share of what is shown, of which there is twice as much as objects.
    shown = OperatingPoint(0.5, 100, 100, 100, 50)
    assert objects_needed(shown, ("recall",)) is None
    assert objects_needed(shown, ("precision",)) == -(-draws_needed(0.5) // 2)


def test_without_objects_nothing_tells_how_many() -> None:
    assert objects_needed(OperatingPoint(0.5, 0, 3, 0, 5), ("precision", "recall")) is None
    nothing_shown = OperatingPoint(1.0, 0, 0, 5, 5)
    assert objects_needed(nothing_shown, ("precision",)) is None
    assert objects_needed(nothing_shown, ("recall",)) == draws_needed(wilson_interval(0, 5)[1])


def test_two_of_two_found_do_not_tell_that_all_are() -> None:
    """A class that is known less needs no fewer objects than one that is known better."""
    two = OperatingPoint(0.5, 2, 0, 2, 50)
    known = OperatingPoint(0.5, 65, 6, 71, 50)
    assert objects_needed(two, ("recall",)) == draws_needed(0.5)
    needed = objects_needed(known, ("recall",))
    assert needed is not None
    assert needed < draws_needed(0.5)
    # What is known to ±0.05 is enough, even if the share may be one that needs more.
    num = draws_needed(0.9)
    assert objects_needed(OperatingPoint(0.5, round(0.9 * num), 0, num, 50), ("recall",)) is None


@pytest.mark.parametrize("count", [0, 1, 7, 400])
def test_the_interval_of_a_count(count: int) -> None:
    """Its ends are the means from which the count is 1.96 standard deviations away."""
    low, high = count_interval(count)
    for end in (low, high):
        if end > 0:
            assert abs(count - end) / end**0.5 == pytest.approx(1.959964)
    assert low <= count < high
