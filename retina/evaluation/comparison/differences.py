"""How much better one detector is than another in each number, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retina.evaluation.bootstrap import FEW_IMAGES
from retina.evaluation.comparison.resampling import Resampled
from retina.evaluation.comparison.sides import Side
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.metrics import CategoryMetrics
from retina.evaluation.resampled_metrics import AREA_RANGES, CONFIDENCE, Interval, centred_interval
from retina.structures import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two detectors.

    Attributes:
        name: of the number, or of the class.
        first, second: its values; None where there is nothing to find.
        low, high: the interval that holds second − first with 95 % confidence, the middle of the
            resamples put at the difference itself; None where it cannot be told: there is nothing
            to find, or only one image has such objects.
        probability: the share of the resamples, moved likewise, in which the second is better,
            those in which both are equal counted half; None likewise.
        num_images: that have such objects.
        num_objects: of this kind, crowd regions not counted.
    """

    name: str
    first: float | None
    second: float | None
    low: float | None
    high: float | None
    probability: float | None
    num_images: int
    num_objects: int

    @property
    def change(self) -> float | None:
        """The second's value minus the first's."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first

    @property
    def has_few_images(self) -> bool:
        """Whether so few images have such objects that the interval is too narrow."""
        return self.num_images < FEW_IMAGES

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves 0 out, and can be relied on: one of the two is better."""
        if self.low is None or self.high is None or self.has_few_images:
            return False
        return self.low > 0 or self.high < 0

    @property
    def images_needed(self) -> int | None:
        """How many such images would show a difference of this size, if it is real.

        The interval's width falls with the square root of the number of images, and with fewer than
        `FEW_IMAGES` it shows nothing. None where the difference is shown already, where it is 0, or
        where the interval cannot be told.
        """
        change = self.change
        if not change or self.low is None or self.high is None or self.is_shown:
            return None
        towards_zero = change - self.low if change > 0 else self.high - change
        needed = math.ceil(self.num_images * (towards_zero / abs(change)) ** 2) + 1
        return max(needed, FEW_IMAGES)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two detectors in all numbers.

    Attributes:
        first, second: their letters.
        num_images: of the truth.
        numbers: the twelve.
        classes: the AP of each, in the order of their ids.
    """

    first: str
    second: str
    num_images: int
    numbers: tuple[Difference, ...]
    classes: tuple[Difference, ...]

    @property
    def ap(self) -> Difference:
        """The difference in AP."""
        return self.numbers[0]

    @property
    def sentence(self) -> str:
        """The verdict on AP, in plain words."""
        ap, images = self.ap, f"{self.num_images:,} image{'s' if self.num_images != 1 else ''}"
        if ap.change is None:
            return f"{self.first} and {self.second}: nothing could be scored, there is no object."
        if ap.low is None or ap.high is None:
            return (
                f"{self.second} against {self.first}: AP {signed(ap.change)}; how sure that is "
                f"cannot be told with {images}."
            )
        span = f"{CONFIDENCE * 100:.0f} % interval {signed(ap.low)} to {signed(ap.high)}"
        caution = (
            f" Fewer than {FEW_IMAGES} images with objects give too narrow an interval: do not "
            "rely on it."
            if ap.has_few_images
            else ""
        )
        if ap.is_shown:
            word = "better" if ap.change > 0 else "worse"
            return (
                f"{self.second} is {word} than {self.first}: AP {signed(ap.change)} "
                f"({span}, {images}).{caution}"
            )
        told = f"{self.second} against {self.first}: no difference can be shown with {images}: "
        if ap.low == ap.high == 0:
            return f"{told}AP is the same in every resample."
        needed = ap.images_needed
        more = (
            f"; if the difference is real, about {_rounded(needed)} such images would show it"
            if needed is not None
            else ""
        )
        return f"{told}AP {signed(ap.change)} ({span}){more}.{caution}"


def signed(value: float | None) -> str:
    """A difference for people; a dash where there is none."""
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:+.4f}".replace("-", "−")


def _rounded(count: int) -> str:
    """Two digits: no more are known."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / step) * step:,}"


def compare_pair(first: Side, second: Side, resampled: Mapping[str, Resampled]) -> Pair:
    """Compare two detectors.

    Args:
        first: the one that is compared with.
        second: scored against the same truth.
        resampled: the numbers of both on the same resamples, by their letters.
    """
    problem, ours, theirs = first.problem, resampled[first.letter], resampled[second.letter]
    is_object = ~problem.truth_is_crowd
    ours_now, theirs_now = first.metrics.numbers(), second.metrics.numbers()
    numbers = tuple(
        _difference(
            name,
            _if_known(ours_now[name]),
            _if_known(theirs_now[name]),
            theirs.numbers[name] - ours.numbers[name],
            *_images_and_objects(problem, is_object & _is_of_size(problem, name)),
        )
        for name in ours_now
    )
    classes = []
    by_number = zip(classes_by_number(first), classes_by_number(second), strict=True)
    for number, (one, other) in enumerate(by_number, start=1):
        samples = np.zeros(0)
        if number in ours.class_ap:
            samples = theirs.class_ap[number] - ours.class_ap[number]
        counts = _images_and_objects(problem, is_object & (problem.truth_categories == number))
        classes.append(_difference(one.name, one.AP, other.AP, samples, *counts))
    return Pair(first.letter, second.letter, problem.num_images, numbers, tuple(classes))


def _images_and_objects(problem: ScoringProblem, which: BoolArray) -> tuple[int, int]:
    return len(np.unique(problem.truth_images[which])), int(which.sum())


def _is_of_size(problem: ScoringProblem, name: str) -> BoolArray:
    """``(G,)`` whether a number is about an annotation: APs and ARs are of small ones, …."""
    low, high = AREA_RANGES["sml".find(name[-1]) + 1]
    is_of: BoolArray = (problem.truth_areas >= low) & (problem.truth_areas <= high)
    return is_of


def _if_known(value: float) -> float | None:
    return None if value < 0 else value


def classes_by_number(side: Side) -> list[CategoryMetrics]:
    """The classes in the order of their numbers in a problem, which is that of their ids."""
    return sorted(side.metrics.per_category, key=lambda category: category.dataset_id)


def _difference(
    name: str,
    first: float | None,
    second: float | None,
    samples: FloatArray,
    num_images: int,
    num_objects: int,
) -> Difference:
    low = high = probability = None
    if first is not None and second is not None and num_images > 1:
        change = second - first
        found = centred_interval(change, samples)
        if found is not None:
            samples = samples[np.isfinite(samples)]
            shift = change - float(np.median(samples))
            low, high = _kept_at_zero(found, shift)
            moved = np.where(samples == 0, 0.0, samples + shift)
            probability = float(np.mean(moved > 0) + np.mean(samples == 0) / 2)
    return Difference(name, first, second, low, high, probability, num_images, num_objects)


def _kept_at_zero(found: Interval, shift: float) -> Interval:
    """Within what a difference can be; an end at 0 is not moved away from it.

    It is there because both sides are equal in so many resamples, which shows no difference.
    """
    low, high = max(-1.0, found[0]), min(1.0, found[1])
    if found[0] == shift:
        low = min(low, 0.0)
    if found[1] == shift:
        high = max(high, 0.0)
    return low, high
