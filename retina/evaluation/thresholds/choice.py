"""The thresholds of the classes, and the one for all: chosen by a rule on annotated images.

Letters: N detections, I images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retina.errors import UserError
from retina.evaluation.thresholds.candidates import find_candidates
from retina.evaluation.thresholds.outcomes import Outcomes, SplitOutcomes
from retina.evaluation.thresholds.rules import Rule


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What is counted where detections of at least some score are shown.

    Attributes:
        threshold: that score; None where classes have their own.
        true: objects that are found.
        false: false alarms.
        num_objects: that are to be found.
        num_images: they are in.
    """

    threshold: float | None
    true: int
    false: int
    num_objects: int
    num_images: int

    @property
    def num_shown(self) -> int:
        """Detections, without those that crowd regions absorb."""
        return self.true + self.false

    @property
    def missed(self) -> int:
        """Objects that are not found."""
        return self.num_objects - self.true

    @property
    def precision(self) -> float | None:
        """The share of what is shown that is right; None where nothing is shown."""
        return self.true / self.num_shown if self.num_shown else None

    @property
    def recall(self) -> float | None:
        """The share of the objects that is found; None where there is none."""
        return self.true / self.num_objects if self.num_objects else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of the two; None where there is neither object nor detection."""
        divisor = self.num_shown + self.num_objects
        return 2 * self.true / divisor if divisor else None

    @property
    def false_alarms_per_image(self) -> float:
        """The mean over all images, also those without objects."""
        return self.false / self.num_images


Source = Literal["own", "nearest", "common", "no objects", "nothing found"]
"""Where a threshold is from: it meets the demand; it is the nearest to a demand that nothing meets;
or it is the common one, because it was asked for, or the class has no object, or none was found."""


@dataclass(frozen=True, slots=True)
class ChosenPoint:
    """A threshold, and what it reaches on the images that it was chosen on.

    Attributes:
        point: what it counts.
        source: where it is from.
    """

    point: OperatingPoint
    source: Source

    @property
    def is_own(self) -> bool:
        """Whether it was chosen by what it counts itself."""
        return self.source in ("own", "nearest")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of all classes.

    Attributes:
        rule: by which they were chosen.
        is_per_class: whether each class has its own, as far as it can.
        common: one for all classes together.
        classes: of each of the K classes.
        total: what all classes count, each at its threshold.
    """

    rule: Rule
    is_per_class: bool
    common: ChosenPoint
    classes: tuple[ChosenPoint, ...]
    total: OperatingPoint

    @property
    def values(self) -> tuple[float, ...]:
        """The threshold of each class."""
        return tuple(_value(one) for one in self.classes)

    def describe(self) -> str:
        """The rule, and whether it is each class's, for people."""
        scope = "of each class" if self.is_per_class else "of all classes together"
        return f"{self.rule.describe()} {scope}"


def choose_thresholds(outcomes: SplitOutcomes, rule: Rule, *, per_class: bool) -> Thresholds:
    """Choose the best threshold of all there are: see `find_candidates`.

    Args:
        outcomes: of the detections.
        rule: what is best.
        per_class: one for each class; else one for all.

    Raises:
        UserError: the images have no object, or no detection has found one.
    """
    if not outcomes.all_classes.num_objects:
        raise UserError("no threshold can be chosen: the annotations have no object")
    if not outcomes.all_classes.is_true.any():
        raise UserError(
            f"no threshold can be chosen: no detection has found an object at IoU "
            f"{outcomes.iou:g}; take a lower --iou, or a detector that finds some"
        )
    common = _choose(outcomes.all_classes, rule)
    assert common is not None
    classes = tuple(_of_class(one, rule, common, per_class) for one in outcomes.classes)
    values = tuple(_value(one) for one in classes)
    return Thresholds(rule, per_class, common, classes, count_all(outcomes, values))


def count_at(outcomes: Outcomes, threshold: float) -> OperatingPoint:
    """What is counted from a score on."""
    num_shown = outcomes.num_shown(threshold)
    true = int(outcomes.is_true[:num_shown].sum())
    return OperatingPoint(
        threshold, true, num_shown - true, outcomes.num_objects, outcomes.num_images
    )


def count_all(outcomes: SplitOutcomes, thresholds: tuple[float, ...]) -> OperatingPoint:
    """What all classes count together, each from its own score on."""
    points = [count_at(one, value) for one, value in zip(outcomes.classes, thresholds, strict=True)]
    return OperatingPoint(
        threshold=None,
        true=sum(point.true for point in points),
        false=sum(point.false for point in points),
        num_objects=sum(point.num_objects for point in points),
        num_images=outcomes.num_images,
    )


def _of_class(outcomes: Outcomes, rule: Rule, common: ChosenPoint, per_class: bool) -> ChosenPoint:
    def at_common(source: Source) -> ChosenPoint:
        return ChosenPoint(count_at(outcomes, _value(common)), source)

    if not per_class:
        return at_common("common")
    if not outcomes.num_objects:
        return at_common("no objects")
    return _choose(outcomes, rule) or at_common("nothing found")


def _choose(outcomes: Outcomes, rule: Rule) -> ChosenPoint | None:
    """The best threshold by the rule; None where nothing tells one."""
    candidates = find_candidates(outcomes)
    if not len(candidates.last) or not (outcomes.is_true.any() or rule.may_show_nothing):
        return None
    rows, is_met = rule.choose(candidates.counts())
    threshold = candidates.threshold(int(rows[0]))
    return ChosenPoint(count_at(outcomes, threshold), "own" if is_met[0] else "nearest")


def _value(chosen: ChosenPoint) -> float:
    assert chosen.point.threshold is not None
    return chosen.point.threshold
