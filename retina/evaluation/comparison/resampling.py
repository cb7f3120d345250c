"""The twelve numbers and every class's AP of one detector on resamples of the images.

What is drawn is the same for all detectors, so that what is hard about an image is hard for all and
falls out of the difference between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.bootstrap import (
    ImageMatches,
    average_precisions,
    match_split,
)
from retina.evaluation.engines import COCO_IOUS, ScoringProblem
from retina.evaluation.matching import Ranking
from retina.evaluation.pairs import overlapping_pairs
from retina.evaluation.resampled_metrics import resampled_metrics
from retina.structures import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Resampled:
    """The numbers of one detector on each resample; NaN where a resample has nothing to find.

    Attributes:
        numbers: ``(S,)`` each, by the name in `METRIC_NAMES`.
        class_ap: ``(S,)`` each, by the category's number in the problem; categories without an
            object have none.
    """

    numbers: dict[str, FloatArray]
    class_ap: dict[int, FloatArray]


def resample(problem: ScoringProblem, multiplicities: IntArray) -> Resampled:
    """The numbers of one detector.

    Args:
        problem: its detections and the truth.
        multiplicities: ``(S, I)`` how often each image counts, images in the order of their ids.
    """
    pairs = overlapping_pairs(problem, at_least=COCO_IOUS[0])
    numbers = resampled_metrics(problem, pairs, multiplicities)
    matches = match_split(problem, pairs, Ranking.of(problem))
    of_classes = np.unique(problem.truth_categories[~problem.truth_is_crowd]).tolist()
    class_ap = {
        number: _with_nan(
            average_precisions(ImageMatches(matches.num_images, (category,)), multiplicities)
        )
        for number, category in zip(of_classes, matches.categories, strict=True)
    }
    return Resampled({name: _with_nan(values) for name, values in numbers.items()}, class_ap)


def _with_nan(values: FloatArray) -> FloatArray:
    return np.where(values < 0, np.nan, values)
