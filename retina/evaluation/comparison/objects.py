"""Which objects one detector finds that another misses, and in which images that shows.

An object is found at IoU 0.5, by a detection of its class whose score is at least that of the
operating point. Letters: I images, G annotations, N detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.comparison.sides import Side
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.f1 import best_f1
from retina.evaluation.matching import Matching, match_detections
from retina.evaluation.resampled_metrics import AREA_RANGES
from retina.structures import BoolArray, FloatArray, IntArray

IOU = 0.5
MOST_IMAGES = 50
"""That changed for the better, and likewise for the worse."""

SIZES = ("small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Matched:
    """The detections of one side and what became of them at IoU 0.5.

    Attributes:
        problem: the detections and the truth.
        matching: which has found what.
    """

    problem: ScoringProblem
    matching: Matching

    @classmethod
    def of(cls, side: Side) -> Matched:
        """Match a side."""
        (matching,) = match_detections(side.problem, [IOU])
        return cls(side.problem, matching)

    def found(self, score: float) -> BoolArray:
        """``(G,)`` the objects that are found by a detection of at least this score."""
        scores = self.object_scores()
        return scores >= score

    def object_scores(self) -> FloatArray:
        """``(G,)`` the score of the detection that has found each object; -inf for none."""
        detection = self.matching.detection
        scores = np.append(self.problem.scores, -np.inf)
        found: FloatArray = np.where(detection >= 0, scores[detection], -np.inf)
        return found

    def false_alarms(self, score: float) -> BoolArray:
        """``(N,)`` the detections of at least this score that have found nothing."""
        return self.matching.is_false & (self.problem.scores >= score)

    def best_f1_score(self) -> float:
        """The score with the highest F1 over all classes; 1 where nothing true was found.

        Of equal ones the highest.
        """
        objects = np.array([int((~self.problem.truth_is_crowd).sum())])
        together = np.zeros(len(self.problem.scores), dtype=np.int64)
        _, score = best_f1(together, self.problem.scores, self.matching, objects)
        return 1.0 if np.isnan(score[0]) else float(score[0])

    def score_with_false_alarms(self, most: int) -> float:
        """The lowest score of a detection from which on there are at most so many false alarms."""
        scores = self.problem.scores
        false = np.sort(scores[self.matching.is_false])[::-1]
        allowed = scores if len(false) <= most else scores[scores > false[most]]
        if len(allowed):
            return float(allowed.min())
        return float(np.nextafter(scores.max(), np.inf)) if len(scores) else 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What two detectors find of some objects.

    Attributes:
        name: of the kind of objects.
        num_objects: crowd regions not counted.
        both, only_first, only_second, neither: how many objects they find.
        first_false, second_false: false alarms; of a size, by the area of their boxes.
    """

    name: str
    num_objects: int
    both: int
    only_first: int
    only_second: int
    neither: int
    first_false: int
    second_false: int


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """What changed in an image from the first detector to the second.

    Attributes:
        index: of the image, in the order of the ids.
        only_first, only_second: ``(G',)`` annotations that one of them finds alone, as indices into
            the problem.
        first_false, second_false: false alarms.
    """

    index: int
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    first_false: int
    second_false: int

    @property
    def gain(self) -> int:
        """How many mistakes fewer the second makes: missed objects and false alarms."""
        found = len(self.only_second) - len(self.only_first)
        return found + self.first_false - self.second_false


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """What two detectors find at one operating point each.

    Attributes:
        point: what the scores have in common, a few words.
        first_score, second_score: least scores that count.
        total: of all objects.
        sizes: of small, medium and large ones.
        classes: of every class, in the order of their ids.
        better, worse: the images that changed most, the one that changed most first.
        num_better, num_worse: how many images changed.
    """

    point: str
    first_score: float
    second_score: float
    total: Counts
    sizes: tuple[Counts, ...]
    classes: tuple[Counts, ...]
    better: tuple[ChangedImage, ...]
    worse: tuple[ChangedImage, ...]
    num_better: int
    num_worse: int


def find_objects(
    first: Matched, second: Matched, class_names: Sequence[str]
) -> tuple[FoundObjects, FoundObjects]:
    """What is found at each one's highest F1, and with equally many false alarms.

    Args:
        first: the one that is compared with.
        second: scored against the same truth.
        class_names: in the order of the numbers of the problem.
    """
    scores = first.best_f1_score(), second.best_f1_score()
    most = int(first.false_alarms(scores[0]).sum())
    equal = second.score_with_false_alarms(most)
    return (
        _at(first, second, scores, class_names, "each at its highest F1 over all classes"),
        _at(
            first,
            second,
            (scores[0], equal),
            class_names,
            "at equal false alarms: the second at the lowest score with no more than the first",
        ),
    )


def _at(
    first: Matched,
    second: Matched,
    scores: tuple[float, float],
    class_names: Sequence[str],
    point: str,
) -> FoundObjects:
    problem = first.problem
    is_object = ~problem.truth_is_crowd
    found = first.found(scores[0]), second.found(scores[1])
    false = first.false_alarms(scores[0]), second.false_alarms(scores[1])
    areas = [np.abs(one.problem.boxes[:, 2] * one.problem.boxes[:, 3]) for one in (first, second)]
    size_of = _size(problem.truth_areas)

    def count(name: str, truth: BoolArray, alarms: list[BoolArray]) -> Counts:
        ours, theirs = found[0] & truth, found[1] & truth
        return Counts(
            name=name,
            num_objects=int(truth.sum()),
            both=int((ours & theirs).sum()),
            only_first=int((ours & ~theirs).sum()),
            only_second=int((theirs & ~ours).sum()),
            neither=int((truth & ~ours & ~theirs).sum()),
            first_false=int((false[0] & alarms[0]).sum()),
            second_false=int((false[1] & alarms[1]).sum()),
        )

    everything = [np.ones(len(one), dtype=np.bool_) for one in false]
    changed = _changed_images(problem, found, false, (first.problem.images, second.problem.images))
    better = [image for image in changed if image.gain > 0]
    worse = [image for image in changed if image.gain < 0]
    return FoundObjects(
        point=point,
        first_score=scores[0],
        second_score=scores[1],
        total=count("all", is_object, everything),
        sizes=tuple(
            count(name, is_object & (size_of == size), [_size(area) == size for area in areas])
            for size, name in enumerate(SIZES)
        ),
        classes=tuple(
            count(
                name,
                is_object & (problem.truth_categories == number),
                [one.problem.categories == number for one in (first, second)],
            )
            for number, name in enumerate(class_names, start=1)
        ),
        better=_most_changed(better),
        worse=_most_changed(worse),
        num_better=len(better),
        num_worse=len(worse),
    )


def _size(areas: FloatArray) -> IntArray:
    sizes: IntArray = np.searchsorted(
        [high for _, high in AREA_RANGES[1:3]], areas, side="left"
    ).astype(np.int64)
    return sizes


def _changed_images(
    problem: ScoringProblem,
    found: tuple[BoolArray, BoolArray],
    false: tuple[BoolArray, BoolArray],
    images: tuple[IntArray, IntArray],
) -> list[ChangedImage]:
    alarms = [
        np.bincount(where[which] - 1, minlength=problem.num_images)
        for where, which in zip(images, false, strict=True)
    ]
    lone = [np.flatnonzero(found[0] & ~found[1]), np.flatnonzero(found[1] & ~found[0])]
    of_image: list[dict[int, list[int]]] = [{}, {}]
    for rows, by_image in zip(lone, of_image, strict=True):
        for row in rows.tolist():
            by_image.setdefault(int(problem.truth_images[row]) - 1, []).append(row)
    candidates = of_image[0].keys() | of_image[1].keys()
    candidates |= set(np.flatnonzero(alarms[0] != alarms[1]).tolist())
    return [
        ChangedImage(
            index,
            tuple(of_image[0].get(index, ())),
            tuple(of_image[1].get(index, ())),
            int(alarms[0][index]),
            int(alarms[1][index]),
        )
        for index in sorted(candidates)
    ]


def _most_changed(images: list[ChangedImage]) -> tuple[ChangedImage, ...]:
    def change(image: ChangedImage) -> tuple[int, int]:
        return abs(image.gain), len(image.only_first) + len(image.only_second)

    return tuple(sorted(images, key=change, reverse=True)[:MOST_IMAGES])
