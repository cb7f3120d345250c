"""How sure an AP is, given that other images could have been annotated: the bootstrap.

A resample draws as many images as the split has, with replacement (Efron 1979). Detections are
matched to objects image by image, so the matches are made once and every resample only counts the
images with their multiplicities: a resample in which every image comes once gives the AP of
`CocoMetrics`. Two detectors are compared on the same resamples, so that what is hard about a drawn
image is hard for both and falls out of the difference. (hotcoco has a paired comparison as well,
but it counts an image that is drawn twice only once, so that its intervals have 0.76 of the width
that they should have.)

Letters: I images, K categories, T IoU thresholds, N detections, P true positives, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import COCO_IOUS
from retina.evaluation.matching import match_detections, within_cap
from retina.structures import BoolArray, FloatArray, IntArray

_RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
_EPSILON = np.spacing(1)  # pycocotools adds it to the number of detections
_BLOCK_ELEMENTS = 1 << 18
"""Detections × resamples at a time, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class CategoryMatches:
    """What became of the detections of one category.

    Attributes:
        images: ``(N,)`` the image of each detection, 0 … I-1; highest score first.
        is_true: ``(T, N)`` whether it has found an object.
        is_ignored: ``(T, N)`` whether it counts neither as true nor as false (crowd regions).
        num_objects: ``(I,)`` that are to be found in each image.
    """

    images: IntArray
    is_true: BoolArray
    is_ignored: BoolArray
    num_objects: IntArray


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """What became of all detections on a split.

    Attributes:
        num_images: I.
        categories: those that have an object to be found; the others have no AP.
    """

    num_images: int
    categories: tuple[CategoryMatches, ...]


def match_per_image(metrics: CocoMetrics) -> ImageMatches:
    """Match the detections that were given to ``metrics``; images are in the order of their ids."""
    problem = metrics.problem()
    matchings = match_detections(problem, COCO_IOUS)
    kept = within_cap(problem, problem.max_detections[-1])
    # Equal scores by image, as pycocotools ranks them: the rows of the problem need not be so.
    kept = kept[np.lexsort((problem.images[kept], -problem.scores[kept]))]
    is_object = ~problem.truth_is_crowd
    found = []
    for number in np.unique(problem.truth_categories[is_object]).tolist():
        rows = kept[problem.categories[kept] == number]
        images = problem.truth_images[is_object & (problem.truth_categories == number)] - 1
        found.append(
            CategoryMatches(
                images=problem.images[rows] - 1,
                is_true=np.stack([one.is_true[rows] for one in matchings]),
                is_ignored=np.stack([one.is_ignored[rows] for one in matchings]),
                num_objects=np.bincount(images, minlength=problem.num_images),
            )
        )
    return ImageMatches(num_images=problem.num_images, categories=tuple(found))


def draw_multiplicities(num_images: int, num_resamples: int, *, seed: int) -> IntArray:
    """``(S, I)``: how often each image comes in each resample of ``num_images`` draws."""
    generator = np.random.default_rng(seed)
    shares = np.full(num_images, 1 / num_images)
    return generator.multinomial(num_images, shares, size=num_resamples).astype(np.int64)


def average_precisions(matches: ImageMatches, multiplicities: IntArray) -> FloatArray:
    """COCO's AP of each resample, all areas, IoU 0.50:0.95.

    Args:
        matches: of one detector.
        multiplicities: ``(S, I)`` how often each image counts.

    Returns:
        ``(S,)``; -1 where a resample has no object, as in `DetectionMetrics`.
    """
    num_resamples = len(multiplicities)
    totals, counts = np.zeros(num_resamples), np.zeros(num_resamples)
    for category in matches.categories:
        block = max(1, _BLOCK_ELEMENTS // max(1, len(category.images)))
        for start in range(0, num_resamples, block):
            rows = slice(start, start + block)
            values = _category_ap(category, multiplicities[rows])
            has_objects = values >= 0
            totals[rows] += np.where(has_objects, values, 0.0)
            counts[rows] += has_objects
    return np.where(counts > 0, totals / np.maximum(counts, 1), -1.0)


def _category_ap(category: CategoryMatches, multiplicities: IntArray) -> FloatArray:
    """``(S,)`` the AP of one category in each resample, -1 where it has no object."""
    num_objects = multiplicities @ category.num_objects  # (S,)
    needed = _needed_true_positives(num_objects)
    # Resamples lie side by side, so that running sums add whole rows.
    weights = multiplicities.T.astype(np.int32)[category.images]  # (N, S)
    # Only crowd regions make a difference between the thresholds in what is counted.
    ranks = None if category.is_ignored.any() else np.cumsum(weights, axis=0, dtype=np.int32)
    total = np.zeros(len(num_objects))
    for is_true, is_ignored in zip(category.is_true, category.is_ignored, strict=True):
        counted = ranks
        if counted is None:
            counted = np.cumsum(weights * ~is_ignored[:, None], axis=0, dtype=np.int32)
        # Recall rises at true positives only, so only the precision there is ever read.
        rows = np.flatnonzero(is_true)
        true = np.cumsum(weights[rows], axis=0, dtype=np.int32)  # (P, S)
        total += _mean_precision(true, counted[rows], needed)
    values: FloatArray = np.where(num_objects > 0, total / len(category.is_true), -1.0)
    return values


def _needed_true_positives(num_objects: IntArray) -> IntArray:
    """``(S, 101)``: how many true positives reach each recall level.

    The smallest m with m / objects ≥ level in float64, the comparison that pycocotools makes.
    """
    objects = np.maximum(num_objects, 1)[:, None]
    needed = np.ceil(_RECALL_LEVELS * objects).astype(np.int64)
    needed -= (needed > 0) & ((needed - 1) / objects >= _RECALL_LEVELS)
    needed += needed / objects < _RECALL_LEVELS
    return needed


def _mean_precision(
    true: npt.NDArray[np.int32], counted: npt.NDArray[np.int32], needed: IntArray
) -> FloatArray:
    """``(S,)`` the interpolated precision, averaged over the recall levels.

    Args:
        true: ``(P, S)`` true positives up to and including each of them.
        counted: ``(P, S)`` detections up to there that are not ignored.
        needed: ``(S, 101)`` true positives that reach each recall level.
    """
    num_true, num_resamples = true.shape
    if num_true == 0:
        return np.zeros(num_resamples)
    precision = true / (counted + _EPSILON)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # One search for all resamples: each lies above the one before it.
    height = max(int(true[-1].max()), int(needed.max())) + 1
    numbers = np.arange(num_resamples)[:, None]
    at = np.searchsorted(
        (true.T + numbers * height).ravel(), (needed + numbers * height).ravel(), side="left"
    )
    reached = needed <= true[-1][:, None]
    rows = np.where(reached, at.reshape(needed.shape) - numbers * num_true, 0)
    read: FloatArray = np.where(reached, precision[rows, numbers], 0.0)
    means: FloatArray = read.mean(axis=1)
    return means


def interval(samples: Iterable[float] | FloatArray, confidence: float) -> tuple[float, float]:
    """The middle part of the samples that holds ``confidence`` of them (percentile interval)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(samples, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)
