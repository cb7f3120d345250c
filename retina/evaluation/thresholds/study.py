"""All that is told of thresholds: the choice, how sure it is, and the check on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retina.evaluation.bootstrap import FEW_IMAGES
from retina.evaluation.resampled_metrics import CONFIDENCE
from retina.evaluation.thresholds.choice import (
    ChosenPoint,
    OperatingPoint,
    Source,
    Thresholds,
    choose_thresholds,
)
from retina.evaluation.thresholds.halves import HalvesCheck, check_on_halves
from retina.evaluation.thresholds.intervals import ThresholdIntervals, bootstrap_thresholds
from retina.evaluation.thresholds.kept import kept_thresholds
from retina.evaluation.thresholds.outcomes import SplitOutcomes
from retina.evaluation.thresholds.rules import MostFalseAlarms, Rule
from retina.evaluation.thresholds.sufficiency import HALF_WIDTH, objects_needed
from retina.modeling.thresholds import ThresholdsConfig
from retina.wording import counted

_MOST_NAMES = 8
"""Classes that a note names, at most."""


@dataclass(frozen=True, slots=True)
class ThresholdStudy:
    """What a rule gives on a data set.

    Attributes:
        names: of the classes.
        iou: from which overlap on a detection has found an object.
        chosen: the thresholds.
        intervals: of them and of what they reach.
        check: on halves of the images, or None where these are too small for one.
    """

    names: tuple[str, ...]
    iou: float
    chosen: Thresholds
    intervals: ThresholdIntervals
    check: HalvesCheck | None

    @property
    def rule(self) -> str:
        """By what they were chosen, for people."""
        return self.chosen.describe()

    def needed(self, point: OperatingPoint) -> int | None:
        """See `objects_needed`."""
        return objects_needed(point, self.chosen.rule.measures)

    def notes(self) -> tuple[str, ...]:
        """What must be said beside the numbers, a sentence each."""
        return tuple(
            note
            for note in (
                *self._demands_not_met(),
                f"behind a number: its {CONFIDENCE:.0%} interval, by "
                f"{self.intervals.num_resamples} resamples of the images; with objects in fewer "
                f"than {FEW_IMAGES} images at least that of as many independent draws (Wilson)",
                self._on_common("no objects", "no object here"),
                self._on_common("nothing found", "objects here, but none that was found"),
                self._all_together(),
                self._too_few(),
                None
                if self.check is not None
                else "not checked on another half: a half of the images has too few objects",
            )
            if note is not None
        )

    def to_config(self, *, data: str, date: str) -> ThresholdsConfig:
        """What a detector file keeps of it.

        Args:
            data: the data set, as it was named.
            date: the day, ``YYYY-MM-DD``.
        """
        return kept_thresholds(self.chosen, iou=self.iou, data=data, date=date)

    def _demands_not_met(self) -> list[str]:
        chosen = self.chosen
        rule = chosen.rule.describe()
        unmet = [
            (name, one)
            for name, one in zip(self.names, chosen.classes, strict=True)
            if one.source == "nearest"
        ]
        if chosen.common.source == "nearest" and not chosen.is_per_class:
            unmet = [("all classes together", chosen.common)]
        notes = [f"{name}: no score has a {rule}; {_nearest(one)}" for name, one in unmet]
        if len(notes) > _MOST_NAMES:
            rest = counted(len(notes) - _MOST_NAMES, "class", "more without such a score")
            notes = [*notes[:_MOST_NAMES], rest]
        return notes

    def _on_common(self, source: Source, why: str) -> str | None:
        names = [
            name
            for name, one in zip(self.names, self.chosen.classes, strict=True)
            if one.source == source
        ]
        if not names:
            return None
        verb = "has" if len(names) == 1 else "have"
        gets = "gets" if len(names) == 1 else "get"
        common = self.chosen.common.point.threshold
        return (
            f"{counted(len(names), 'class')} {verb} {why} and {gets} the common score "
            f"{common:g}: {_some(names)}"
        )

    def _all_together(self) -> str | None:
        chosen = self.chosen
        if not (chosen.is_per_class and isinstance(chosen.rule, MostFalseAlarms)):
            return None
        return (
            "the demand is on each class; all together make "
            f"{chosen.total.false_alarms_per_image:.2f} false alarms per image"
        )

    def _too_few(self) -> str | None:
        few = [
            (name, needed)
            for name, one in zip(self.names, self.chosen.classes, strict=True)
            if (needed := self.needed(one.point)) is not None
        ]
        if not few:
            return None
        what = " and ".join(self.chosen.rule.measures)
        told = [f"{name} ({needed})" for name, needed in few]
        return (
            f"too few objects to know {what} to ±{HALF_WIDTH:g}, and how many are needed: "
            f"{_some(told)}"
        )


def study_thresholds(
    outcomes: SplitOutcomes, rule: Rule, *, per_class: bool, num_resamples: int, seed: int
) -> ThresholdStudy:
    """Choose thresholds, and tell how sure they are.

    Args:
        outcomes: of the detections.
        rule: what is best.
        per_class: one for each class; else one for all.
        num_resamples: of the images, for the intervals.
        seed: of the resamples and the halves.

    Raises:
        UserError: see `choose_thresholds`.
    """
    chosen = choose_thresholds(outcomes, rule, per_class=per_class)
    return ThresholdStudy(
        names=outcomes.names,
        iou=outcomes.iou,
        chosen=chosen,
        intervals=bootstrap_thresholds(outcomes, chosen, num_resamples=num_resamples, seed=seed),
        check=check_on_halves(outcomes, rule, per_class=per_class, seed=seed),
    )


def _nearest(chosen: ChosenPoint) -> str:
    point = chosen.point
    shares = [
        f"{name} {share:.3f}"
        for name, share in (("precision", point.precision), ("recall", point.recall))
        if share is not None
    ]
    return (
        f"the nearest is {point.threshold:g}, with {', '.join(shares)} and "
        f"{point.false_alarms_per_image:.2f} false alarms per image"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
