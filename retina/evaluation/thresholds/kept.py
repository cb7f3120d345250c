"""What a detector file keeps of thresholds."""

from __future__ import annotations

from retina.errors import UserError
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.thresholds.choice import OperatingPoint, Thresholds, choose_thresholds
from retina.evaluation.thresholds.outcomes import match_split
from retina.evaluation.thresholds.rules import BestF
from retina.modeling.thresholds import ReachedConfig, ThresholdOrigin, ThresholdsConfig
from retina.structures import Categories

_IOU_OF_TRAINING = 0.5


def kept_thresholds(
    chosen: Thresholds, *, iou: float, data: str, date: str | None
) -> ThresholdsConfig:
    """Thresholds with how they were chosen: see `ThresholdOrigin` for the arguments."""
    common = chosen.common.point.threshold
    assert common is not None
    own = tuple(one.point.threshold if one.is_own else None for one in chosen.classes)
    return ThresholdsConfig(
        common=common,
        per_class=own if chosen.is_per_class else None,
        origin=ThresholdOrigin(
            rule=chosen.describe(),
            iou=iou,
            date=date,
            data=data,
            num_images=chosen.total.num_images,
            num_objects=chosen.total.num_objects,
            reached=_reached(chosen.total),
            per_class=tuple(_reached(one.point) for one in chosen.classes),
        ),
    )


def thresholds_of_training(
    problem: ScoringProblem, categories: Categories
) -> ThresholdsConfig | None:
    """What a training keeps: the one threshold with the best F1 on its validation images.

    One for all classes, since a validation set is often too small to tell each its own.

    Args:
        problem: the validation images and what was found in them.
        categories: of the ground truth.

    Returns:
        Without a date, so that the same training makes the same file. None where no object was
        found.
    """
    outcomes = match_split(problem, categories, iou=_IOU_OF_TRAINING)
    try:
        chosen = choose_thresholds(outcomes, BestF(), per_class=False)
    except UserError:
        return None
    return kept_thresholds(
        chosen, iou=_IOU_OF_TRAINING, data="the validation images of the training", date=None
    )


def _reached(point: OperatingPoint) -> ReachedConfig:
    return ReachedConfig(
        precision=point.precision,
        recall=point.recall,
        f1=point.f1,
        false_alarms_per_image=point.false_alarms_per_image,
    )
