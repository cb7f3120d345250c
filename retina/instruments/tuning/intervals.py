"""How sure a mean over seeds is, given other images and other seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from retina.evaluation.bootstrap import interval
from retina.structures import FloatArray

Interval = tuple[float, float]


def seeds_and_images_interval(
    by_seed: Sequence[float], samples: FloatArray, confidence: float
) -> Interval:
    """The interval of a mean over seeds, from what images and seeds each make it vary.

    The images' part is the percentile interval of the bootstrap, the seeds' part Student's t
    interval of their mean. (Drawing the few seeds with replacement, as the images are drawn, would
    give far too narrow intervals: of two seeds' means, half of the draws take one seed twice, and
    the range of these covers the truth in 50 %.) Both are joined by adding the squares of their
    arms (Zou and Donner 2008, "Construction of confidence limits about effect measures"). What a
    seed makes of these very images counts in both parts, so the interval is rather too wide.

    Args:
        by_seed: ``(D,)`` the value with each seed, on all images.
        samples: ``(S,)`` the mean over the seeds in each resample of the images.
        confidence: of the interval.

    Returns:
        Its ends; with one seed they know of the images only.
    """
    low, high = interval(samples, confidence)
    num_seeds = len(by_seed)
    if num_seeds == 1:
        return low, high
    mean = float(np.mean(by_seed))
    error = float(np.std(by_seed, ddof=1)) / math.sqrt(num_seeds)
    arm = student_quantile(confidence, num_seeds - 1) * error
    below, above = (math.hypot(max(0.0, side), arm) for side in (mean - low, high - mean))
    return mean - below, mean + above


@lru_cache
def student_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| ≤ t) = ``confidence`` for Student's T: 12.706 for 95 % and one degree."""
    low, high = 0.0, math.pi / 2  # of arctan(t / √degrees)
    while (middle := (low + high) / 2) not in (low, high):
        if _student_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(middle)


def _student_probability(angle: float, degrees: int) -> float:
    """P(|T| ≤ t) at angle = arctan(t / √degrees) (Abramowitz and Stegun 1964, 26.7.3–4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    term = cosine if is_odd else 1.0
    total = 0.0
    for power in range(1 if is_odd else 0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return (angle + sine * total) * 2 / math.pi if is_odd else sine * total
