"""By what a threshold is chosen.

Letters: C candidates, highest threshold first, S resamples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from retina.evaluation.thresholds.candidates import Counts
from retina.structures import BoolArray, FloatArray, IntArray

Measure = Literal["precision", "recall"]
"""What a threshold reaches: of what is shown, and of the objects, the share that is right."""


class Counted(Protocol):
    """What one threshold counts."""

    @property
    def true(self) -> int:
        """Objects that are found."""

    @property
    def false(self) -> int:
        """False alarms."""

    @property
    def num_objects(self) -> int:
        """That are to be found."""

    @property
    def num_images(self) -> int:
        """They are in."""


class Rule(ABC):
    """A demand on what is shown, and what is best among all that meets it."""

    may_show_nothing: ClassVar[bool] = False
    """Whether it can be best to show nothing."""

    measures: ClassVar[tuple[Measure, ...]] = ("precision", "recall")
    """What must be known well for the choice to be trusted."""

    @property
    def figure_name(self) -> str:
        """What `figure` is called."""
        return "F1"

    @abstractmethod
    def describe(self) -> str:
        """For people, say ``best F1``."""

    def figure(self, point: Counted) -> float | None:
        """What is told of a threshold beside precision and recall; None where it is undefined."""
        return _f_score(point, 1.0)

    @abstractmethod
    def meets(self, counts: Counts) -> BoolArray:
        """``(C, S)`` where the demand is met."""

    @abstractmethod
    def merit(self, counts: Counts) -> FloatArray:
        """``(C, S)`` what is to be as high as possible among them."""

    def nearness(self, counts: Counts) -> FloatArray:
        """``(C, S)`` what is to be as high as possible where none meets the demand."""
        return np.zeros(counts.true.shape)

    def choose(self, counts: Counts) -> tuple[IntArray, BoolArray]:
        """The best candidates: of equal ones the highest threshold.

        Returns:
            ``(S,)`` their rows, and ``(S,)`` whether they meet the demand. Where none does, it is
            the nearest, of equally near ones that which finds most.
        """
        meets = self.meets(counts)
        best: IntArray = np.where(meets, self.merit(counts), -np.inf).argmax(axis=0)
        is_met: BoolArray = np.asarray(meets.any(axis=0))
        if is_met.all():
            return best, is_met
        nearness = self.nearness(counts)
        nearest = np.where(nearness == nearness.max(axis=0), counts.true, -1).argmax(axis=0)
        return np.where(is_met, best, nearest), is_met


@dataclass(frozen=True)
class BestF(Rule):
    """The highest Fβ: (1 + β²) P R / (β² P + R) (van Rijsbergen 1979).

    Attributes:
        beta: how many times as much recall counts as precision.

    Raises:
        ValueError: β is not above 0.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.beta < math.inf, f"β is {self.beta:g}: give a number above 0")

    @property
    def figure_name(self) -> str:
        """See `Rule`."""
        return f"F{self.beta:g}"

    def describe(self) -> str:
        """See `Rule`."""
        return f"best F{self.beta:g}"

    def figure(self, point: Counted) -> float | None:
        """See `Rule`: Fβ."""
        return _f_score(point, self.beta)

    def meets(self, counts: Counts) -> BoolArray:
        """See `Rule`."""
        return np.asarray(counts.true > 0)

    def merit(self, counts: Counts) -> FloatArray:
        """See `Rule`; of the counts, which divide by zero nowhere that an object is found."""
        weight = self.beta**2
        divisor = counts.true + weight * counts.num_objects + counts.false
        return np.asarray((1 + weight) * counts.true / np.maximum(divisor, 1e-300))


@dataclass(frozen=True)
class LeastPrecision(Rule):
    """The highest recall with a precision of at least so much.

    Raises:
        ValueError: the share does not lie within 0 … 1.
    """

    share: float
    measures: ClassVar[tuple[Measure, ...]] = ("precision",)

    def __post_init__(self) -> None:
        _check_share("precision", self.share)

    def describe(self) -> str:
        """See `Rule`."""
        return f"precision of at least {self.share:g}"

    def meets(self, counts: Counts) -> BoolArray:
        """See `Rule`; where nothing is shown there is no precision."""
        return np.asarray((counts.true > 0) & (_precision(counts) >= self.share))

    def merit(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return counts.true.astype(np.float64)

    def nearness(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return _precision(counts)


@dataclass(frozen=True)
class LeastRecall(Rule):
    """The highest precision with a recall of at least so much.

    Raises:
        ValueError: the share does not lie within 0 … 1.
    """

    share: float
    measures: ClassVar[tuple[Measure, ...]] = ("recall",)

    def __post_init__(self) -> None:
        _check_share("recall", self.share)

    def describe(self) -> str:
        """See `Rule`."""
        return f"recall of at least {self.share:g}"

    def meets(self, counts: Counts) -> BoolArray:
        """See `Rule`."""
        recall = counts.true / np.maximum(counts.num_objects, 1)
        return np.asarray((counts.true > 0) & (recall >= self.share))

    def merit(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return _precision(counts)

    def nearness(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return counts.true.astype(np.float64)


@dataclass(frozen=True)
class MostFalseAlarms(Rule):
    """The highest recall with at most so many false alarms per image.

    Raises:
        ValueError: the number is negative.
    """

    per_image: float
    may_show_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(
            0 <= self.per_image < math.inf,
            f"{self.per_image:g} false alarms per image: give a number of at least 0",
        )

    @property
    def figure_name(self) -> str:
        """See `Rule`."""
        return "FP/img"

    def describe(self) -> str:
        """See `Rule`."""
        return f"at most {self.per_image:g} false alarms per image"

    def figure(self, point: Counted) -> float | None:
        """See `Rule`: false alarms per image."""
        return point.false / point.num_images

    def meets(self, counts: Counts) -> BoolArray:
        """See `Rule`."""
        return np.asarray(counts.false / counts.num_images <= self.per_image)

    def merit(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return counts.true.astype(np.float64)

    def nearness(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        return -counts.false.astype(np.float64)


@dataclass(frozen=True)
class LeastCost(Rule):
    """The lowest sum of what false alarms and missed objects cost.

    Attributes:
        false_alarm: what a false alarm costs.
        missed: what an object costs that is not found.

    Raises:
        ValueError: a cost is negative, or both are 0.
    """

    false_alarm: float
    missed: float
    may_show_nothing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        costs = (self.false_alarm, self.missed)
        _check(
            all(0 <= cost < math.inf for cost in costs) and any(costs),
            f"a false alarm costs {costs[0]:g} and a missed object {costs[1]:g}: give numbers of "
            "at least 0, not both 0",
        )

    @property
    def figure_name(self) -> str:
        """See `Rule`."""
        return "cost/img"

    def describe(self) -> str:
        """See `Rule`."""
        return (
            f"least cost, {self.false_alarm:g} for a false alarm and {self.missed:g} for a missed "
            "object"
        )

    def figure(self, point: Counted) -> float | None:
        """See `Rule`: the cost per image."""
        missed = point.num_objects - point.true
        return (self.false_alarm * point.false + self.missed * missed) / point.num_images

    def meets(self, counts: Counts) -> BoolArray:
        """See `Rule`: all do."""
        return np.ones(counts.true.shape, dtype=np.bool_)

    def merit(self, counts: Counts) -> FloatArray:
        """See `Rule`."""
        missed = counts.num_objects - counts.true
        return np.asarray(-(self.false_alarm * counts.false + self.missed * missed))


def _f_score(point: Counted, beta: float) -> float | None:
    divisor = point.true + beta**2 * point.num_objects + point.false
    return (1 + beta**2) * point.true / divisor if divisor else None


def _precision(counts: Counts) -> FloatArray:
    return np.asarray(counts.true / np.maximum(counts.true + counts.false, 1))


def _check_share(what: str, share: float) -> None:
    _check(0 < share <= 1, f"a {what} of {share:g}: give a number above 0, up to 1")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
