"""What became of every detection, by class and image: all that thresholds are chosen from.

Letters: N detections, I images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import ScoringProblem, category_numbers
from retina.evaluation.matching import match_detections
from retina.structures import BoolArray, Categories, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The detections of one class, or of several, without those that crowd regions absorb.

    Attributes:
        scores: ``(N,)`` highest first.
        images: ``(N,)`` the image of each, 0 … I-1.
        is_true: ``(N,)`` whether it has found an object; else it is a false alarm.
        objects: ``(I,)`` that are to be found in each image.
    """

    scores: FloatArray
    images: IntArray
    is_true: BoolArray
    objects: IntArray

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.objects)

    @property
    def num_objects(self) -> int:
        """That are to be found in all images."""
        return int(self.objects.sum())

    def num_shown(self, threshold: float) -> int:
        """How many detections have at least this score: the first ones."""
        return int(np.searchsorted(-self.scores, -threshold, side="right"))

    def on(self, is_chosen: BoolArray) -> Outcomes:
        """The same on some of the images, numbered anew.

        Args:
            is_chosen: ``(I,)``.
        """
        number = np.cumsum(is_chosen) - 1
        rows = is_chosen[self.images]
        return Outcomes(
            scores=self.scores[rows],
            images=number[self.images[rows]],
            is_true=self.is_true[rows],
            objects=self.objects[is_chosen],
        )


@dataclass(frozen=True, slots=True)
class SplitOutcomes:
    """The detections of a split at one IoU threshold.

    Attributes:
        iou: from this overlap on a detection has found an object.
        names: of the K classes, in the order of the labels.
        classes: of each class.
        all_classes: of all together.
    """

    iou: float
    names: tuple[str, ...]
    classes: tuple[Outcomes, ...]
    all_classes: Outcomes

    @property
    def num_images(self) -> int:
        """I."""
        return self.all_classes.num_images

    def on(self, is_chosen: BoolArray) -> SplitOutcomes:
        """The same on some of the images: see `Outcomes.on`."""
        return SplitOutcomes(
            self.iou,
            self.names,
            tuple(one.on(is_chosen) for one in self.classes),
            self.all_classes.on(is_chosen),
        )


def match_split(problem: ScoringProblem, categories: Categories, *, iou: float) -> SplitOutcomes:
    """Match the detections of a split by COCO's rule: see `match_detections`.

    Args:
        problem: of `CocoMetrics`.
        categories: of its ground truth.
        iou: from which overlap on a detection has found an object.
    """
    (matching,) = match_detections(problem, (iou,))
    order = np.argsort(-problem.scores, kind="stable")
    order = order[~matching.is_ignored[order]]
    numbers = problem.categories[order]
    is_object = ~problem.truth_is_crowd
    num_images = problem.num_images

    def outcomes(number: int | None) -> Outcomes:
        rows = order if number is None else order[numbers == number]
        wanted = is_object
        if number is not None:
            wanted = wanted & (problem.truth_categories == number)
        return Outcomes(
            scores=problem.scores[rows],
            images=problem.images[rows] - 1,
            is_true=matching.is_true[rows],
            objects=np.bincount(problem.truth_images[wanted] - 1, minlength=num_images),
        )

    return SplitOutcomes(
        iou=iou,
        names=categories.distinct_names,
        classes=tuple(outcomes(number) for number in category_numbers(categories).tolist()),
        all_classes=outcomes(None),
    )
