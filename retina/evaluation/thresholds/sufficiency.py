"""Whether there are objects enough to say what a threshold reaches.

Precision and recall are shares of counts, so that at best they are as uncertain as a share of so
many independent draws is: Wilson's interval (1927), which is right for few draws and for shares
near 0 and 1, too. What is needed is told for the share within that interval that needs most.
Objects of one image resemble each other, so that more is better.
"""

from __future__ import annotations

import math

from retina.evaluation.thresholds.choice import OperatingPoint
from retina.evaluation.thresholds.rules import Measure

HALF_WIDTH = 0.05
"""A share that is not known better than this, at 95 %, is warned of."""

_Z = 1.959964  # of the normal distribution, 95 % two-sided


def wilson_interval(share: float, num_draws: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``num_draws``."""
    middle = (share + _Z**2 / (2 * num_draws)) / (1 + _Z**2 / num_draws)
    half = half_width(share, num_draws)
    return max(0.0, middle - half), min(1.0, middle + half)


def half_width(share: float, num_draws: float) -> float:
    """Half the width of Wilson's 95 % interval of a share of ``num_draws``."""
    variance = share * (1 - share) / num_draws + _Z**2 / (4 * num_draws**2)
    return _Z * math.sqrt(variance) / (1 + _Z**2 / num_draws)


def count_interval(count: int) -> tuple[float, float]:
    """The 95 % interval of a count of rare things (Poisson), by the same score test as Wilson's."""
    middle, half = count + _Z**2 / 2, _Z * math.sqrt(count + _Z**2 / 4)
    return max(0.0, middle - half), middle + half


def draws_needed(share: float) -> int:
    """The fewest draws with which a share is known to ±`HALF_WIDTH`."""
    low, high = 0, 1  # too few, enough
    while half_width(share, high) > HALF_WIDTH:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(share, middle) <= HALF_WIDTH else (middle, high)
    return high


def _draws_needed_of(share: float, num_draws: int) -> int:
    """The draws needed for a share that ``num_draws`` have told so far, none where they are enough.

    The true share may be anything in its interval, so that at worst is taken which needs most: the
    one nearest to a half. Two of two found do not tell that all are.
    """
    if half_width(share, num_draws) <= HALF_WIDTH:
        return 0
    low, high = wilson_interval(share, num_draws)
    return draws_needed(min(max(low, 0.5), high))


def objects_needed(point: OperatingPoint, measures: tuple[Measure, ...]) -> int | None:
    """How many objects a data set of this kind needs for what is reached to be known.

    Args:
        point: what a threshold counts.
        measures: which of precision and recall matter.

    Returns:
        So many, more than there are; None where there are enough, or none to judge by.
    """
    if not point.num_objects:
        return None
    needed = 0
    if "recall" in measures and point.recall is not None:
        needed = _draws_needed_of(point.recall, point.num_objects)
    if "precision" in measures and point.precision is not None:
        # As many are shown per object with more images.
        per_object = point.num_shown / point.num_objects
        draws = _draws_needed_of(point.precision, point.num_shown)
        needed = max(needed, math.ceil(draws / per_object))
    return needed if needed > point.num_objects else None
