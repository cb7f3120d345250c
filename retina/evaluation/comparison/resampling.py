"""The twelve numbers and every class's AP on resamples of the images.

Detections are matched once; a resample counts each image as often as it was drawn. What is drawn is
the same for all detectors, so that what is hard about an image is hard for all and falls out of the
difference between two of them.

Letters: I images, K categories, T IoU thresholds, S resamples, M caps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation import bootstrap
from retina.evaluation.bootstrap import IOU_THRESHOLDS, ImageMatches, match_split
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.matching import Ranking
from retina.evaluation.metrics import METRIC_NAMES
from retina.evaluation.pairs import Pairs, overlapping_pairs
from retina.evaluation.resampled_metrics import AREA_RANGES
from retina.structures import FloatArray, IntArray

_AT_IOU_75 = 5


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
    split = _Split(problem, overlapping_pairs(problem, at_least=IOU_THRESHOLDS[0]), multiplicities)
    highest = problem.max_detections[-1]
    caps = [min(cap, highest) for cap in (1, 10, highest)]
    means = {name: _Mean(len(multiplicities)) for name in METRIC_NAMES}
    class_ap = {}
    for number, of_class in split.categories(AREA_RANGES[0], caps):
        ap = of_class.precision.mean(axis=0)
        class_ap[number] = np.where(ap >= 0, ap, np.nan)
        means["AP"].add(ap)
        means["AP50"].add(of_class.precision[0])
        means["AP75"].add(of_class.precision[_AT_IOU_75])
        for name, recall in zip(("AR1", "AR10", "AR100"), of_class.recall, strict=True):
            means[name].add(recall)
    for size, area_range in zip("sml", AREA_RANGES[1:], strict=True):
        for _, of_class in split.categories(area_range, caps[-1:]):
            means[f"AP{size}"].add(of_class.precision.mean(axis=0))
            means[f"AR{size}"].add(of_class.recall[0])
    return Resampled({name: mean.value() for name, mean in means.items()}, class_ap)


@dataclass(frozen=True, slots=True)
class _Split:
    problem: ScoringProblem
    pairs: Pairs
    multiplicities: IntArray

    def categories(
        self, area_range: tuple[float, float], caps: Sequence[int]
    ) -> Iterator[tuple[int, bootstrap.Resampled]]:
        """The number of each category that has an object in the range, and what it scores."""
        problem, (low, high) = self.problem, area_range
        is_found = (problem.truth_areas >= low) & (problem.truth_areas <= high)
        numbers = np.unique(problem.truth_categories[is_found & ~problem.truth_is_crowd]).tolist()
        matches = match_split(problem, self.pairs, Ranking.of(problem), area_range)
        for number, category in zip(numbers, matches.categories, strict=True):
            alone = ImageMatches(problem.num_images, (category,))
            yield number, bootstrap.resample(alone, self.multiplicities, caps)


class _Mean:
    """The mean over the categories that have an object in a resample, for each resample."""

    def __init__(self, num_resamples: int) -> None:
        self._total = np.zeros(num_resamples)
        self._count = np.zeros(num_resamples)

    def add(self, values: FloatArray) -> None:
        is_known = values >= 0
        self._total += np.where(is_known, values, 0.0)
        self._count += is_known

    def value(self) -> FloatArray:
        return np.where(self._count > 0, self._total / np.maximum(self._count, 1), np.nan)
