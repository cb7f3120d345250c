"""Chosen on one half of the images, checked on the other: what a choice is worth on new images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.errors import UserError
from retina.evaluation.thresholds.choice import (
    OperatingPoint,
    Thresholds,
    choose_thresholds,
    count_all,
    count_at,
)
from retina.evaluation.thresholds.outcomes import SplitOutcomes
from retina.evaluation.thresholds.rules import Rule


@dataclass(frozen=True, slots=True)
class HalvesCheck:
    """What was promised on one half, and what the other shows.

    Attributes:
        seed: of the split.
        promised: chosen on the first half, with what it reaches there.
        classes: what each class reaches on the second half.
        total: what all reach there together.
    """

    seed: int
    promised: Thresholds
    classes: tuple[OperatingPoint, ...]
    total: OperatingPoint


def check_on_halves(
    outcomes: SplitOutcomes, rule: Rule, *, per_class: bool, seed: int
) -> HalvesCheck | None:
    """Choose on a random half of the images, and count on the other.

    Returns:
        None where a half has no image, no object, or none that was found.
    """
    num_images = outcomes.num_images
    first = np.zeros(num_images, dtype=np.bool_)
    first[np.random.default_rng(seed).permutation(num_images)[: (num_images + 1) // 2]] = True
    other = outcomes.on(~first)
    if not other.all_classes.num_objects:
        return None
    try:
        promised = choose_thresholds(outcomes.on(first), rule, per_class=per_class)
    except UserError:
        return None
    return HalvesCheck(
        seed=seed,
        promised=promised,
        classes=tuple(
            count_at(one, value) for one, value in zip(other.classes, promised.values, strict=True)
        ),
        total=count_all(other, promised.values),
    )
