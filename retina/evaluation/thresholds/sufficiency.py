"""Whether there are objects enough to say what a threshold reaches.

Precision and recall are shares of counts, so that at best they are as uncertain as a share of so
many independent draws is: Wilson's interval (1927), which is right for few draws and for shares
near 0 and 1, too. Objects of one image resemble each other, so that the numbers are lower bounds.
"""

from __future__ import annotations

import math

from retina.evaluation.thresholds.choice import OperatingPoint
from retina.evaluation.thresholds.rules import Measure

HALF_WIDTH = 0.05
"""A share that is not known better than this, at 95 %, is warned of."""

_Z = 1.959964  # of the normal distribution, 95 % two-sided


def half_width(share: float, num_draws: float) -> float:
    """Half the width of Wilson's 95 % interval of a share of ``num_draws``."""
    variance = share * (1 - share) / num_draws + _Z**2 / (4 * num_draws**2)
    return _Z * math.sqrt(variance) / (1 + _Z**2 / num_draws)


def draws_needed(share: float) -> int:
    """The fewest draws with which a share is known to ±`HALF_WIDTH`."""
    low, high = 0, 1  # too few, enough
    while half_width(share, high) > HALF_WIDTH:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(share, middle) <= HALF_WIDTH else (middle, high)
    return high


def objects_needed(point: OperatingPoint, measures: tuple[Measure, ...]) -> int | None:
    """How many objects a data set of this kind needs for what is reached to be known.

    Args:
        point: what a threshold counts.
        measures: which of precision and recall matter.

    Returns:
        At least so many, more than there are; None where there are enough, or none to judge by.
    """
    if not point.num_objects:
        return None
    needed = 0
    if "recall" in measures and point.recall is not None:
        needed = draws_needed(point.recall)
    if "precision" in measures and point.precision is not None:
        # As many are shown per object with more images.
        per_object = point.num_shown / point.num_objects
        needed = max(needed, math.ceil(draws_needed(point.precision) / per_object))
    return needed if needed > point.num_objects else None
