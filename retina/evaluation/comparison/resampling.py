"""The twelve numbers and every class's AP on resamples of the images.

Detections are matched once; a resample counts each image as often as it was drawn. What is drawn is
the same for all detectors, so that what is hard about an image is hard for all and falls out of the
difference between two of them.

Letters: I images, K categories, T IoU thresholds, N detections, S resamples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina.evaluation.bootstrap import CategoryMatches, precisions_by_threshold
from retina.evaluation.engines import ScoringProblem, match_images_in_range
from retina.evaluation.metrics import METRIC_NAMES
from retina.structures import BoolArray, FloatArray, IntArray

SMALL, MEDIUM = 32.0**2, 96.0**2
"""COCO's largest annotated areas of small and of medium objects, in square pixels."""

_ALL = (0.0, 1e10)
_SIZES = {"s": (0.0, SMALL), "m": (SMALL, MEDIUM), "l": (MEDIUM, 1e10)}
_AT_IOU_75 = 5
_BLOCK_ELEMENTS = 1 << 18


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


@dataclass(frozen=True, slots=True)
class _Category:
    number: int
    matches: CategoryMatches
    ranks: IntArray  # (N,) of each detection among those of its image, 0 for the best


def resample(problem: ScoringProblem, multiplicities: IntArray) -> Resampled:
    """The numbers of one detector.

    Args:
        problem: its detections and the truth.
        multiplicities: ``(S, I)`` how often each image counts, images in the order of their ids.
    """
    caps = dict(zip(("AR1", "AR10", "AR100"), _three_caps(problem), strict=True))
    means = {name: _Mean(len(multiplicities)) for name in METRIC_NAMES}
    class_ap = {}
    for category in _categories(problem, _ALL):
        num_objects = multiplicities @ category.matches.num_objects
        precisions = _precisions(category.matches, multiplicities)  # (T, S)
        class_ap[category.number] = np.where(num_objects > 0, precisions.mean(axis=0), np.nan)
        means["AP"].add(precisions.mean(axis=0), num_objects)
        means["AP50"].add(precisions[0], num_objects)
        means["AP75"].add(precisions[_AT_IOU_75], num_objects)
        for name, cap in caps.items():
            means[name].add(_recalls(category, multiplicities, num_objects, cap), num_objects)
    for size, area_range in _SIZES.items():
        for category in _categories(problem, area_range):
            num_objects = multiplicities @ category.matches.num_objects
            precisions = _precisions(category.matches, multiplicities)
            means[f"AP{size}"].add(precisions.mean(axis=0), num_objects)
            recalls = _recalls(category, multiplicities, num_objects, caps["AR100"])
            means[f"AR{size}"].add(recalls, num_objects)
    return Resampled({name: mean.value() for name, mean in means.items()}, class_ap)


class _Mean:
    """The mean over the categories that have an object in a resample, for each resample."""

    def __init__(self, num_resamples: int) -> None:
        self._total = np.zeros(num_resamples)
        self._count = np.zeros(num_resamples)

    def add(self, values: FloatArray, num_objects: IntArray) -> None:
        self._total += np.where(num_objects > 0, values, 0.0)
        self._count += num_objects > 0

    def value(self) -> FloatArray:
        return np.where(self._count > 0, self._total / np.maximum(self._count, 1), np.nan)


def _three_caps(problem: ScoringProblem) -> tuple[int, int, int]:
    highest = problem.max_detections[-1]
    return min(1, highest), min(10, highest), highest


def _categories(problem: ScoringProblem, area_range: tuple[float, float]) -> Iterator[_Category]:
    """The categories that have an object to be found in the range."""
    entries: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in match_images_in_range(problem, area_range):
        entries[entry["category_id"]].append(entry)
    for number in sorted(entries):
        of_category = sorted(entries[number], key=lambda entry: entry["image_id"])
        category = _category(number, of_category, problem.num_images)
        if category.matches.num_objects.any():
            yield category


def _category(number: int, entries: list[dict[str, Any]], num_images: int) -> _Category:
    num_objects = np.zeros(num_images, dtype=np.int64)
    for entry in entries:
        num_objects[entry["image_id"] - 1] = np.count_nonzero(~np.asarray(entry["gtIgnore"], bool))
    counts = [len(entry["dtScores"]) for entry in entries]
    scores = np.concatenate([np.asarray(entry["dtScores"], float) for entry in entries])
    images = np.repeat([entry["image_id"] - 1 for entry in entries], counts).astype(np.int64)
    ranks = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(-scores, kind="stable")  # equal scores by image, as pycocotools ranks them
    is_matched, is_ignored = (_stacked(entries, key)[:, order] for key in ("dtMatches", "dtIgnore"))
    is_true = is_matched & ~is_ignored
    # Beyond the last true positive nothing is read any more.
    found = np.flatnonzero(is_true.any(axis=0))
    end = int(found[-1]) + 1 if len(found) else 0
    matches = CategoryMatches(
        images=images[order][:end],
        is_true=is_true[:, :end],
        is_ignored=is_ignored[:, :end],
        num_objects=num_objects,
    )
    return _Category(number, matches, ranks[order][:end])


def _stacked(entries: list[dict[str, Any]], key: str) -> BoolArray:
    """``(T, N)`` bool."""
    stacked: BoolArray = np.concatenate([np.asarray(entry[key], bool) for entry in entries], axis=1)
    return stacked


def _precisions(matches: CategoryMatches, multiplicities: IntArray) -> FloatArray:
    """``(T, S)`` the mean precision over the recall levels; of no meaning without an object."""
    block = max(1, _BLOCK_ELEMENTS // max(1, len(matches.images)))
    starts = range(0, len(multiplicities), block)
    return np.concatenate(
        [precisions_by_threshold(matches, multiplicities[at : at + block]) for at in starts], axis=1
    )


def _recalls(
    category: _Category, multiplicities: IntArray, num_objects: IntArray, cap: int
) -> FloatArray:
    """``(S,)`` the recall of the best ``cap`` detections of each image, mean over T."""
    matches = category.matches
    counts = matches.is_true[:, category.ranks < cap].sum(axis=0)
    images = matches.images[category.ranks < cap]
    found = np.bincount(images, weights=counts, minlength=multiplicities.shape[1])
    recalls: FloatArray = multiplicities @ found / np.maximum(num_objects, 1) / len(matches.is_true)
    return recalls
