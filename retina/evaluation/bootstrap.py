"""How sure an AP is, given that other images could have been annotated: the bootstrap.

A resample draws as many images as the split has, with replacement (Efron 1979). Detections are
matched to objects image by image, so the matches are made once and every resample only counts the
images with their multiplicities: a resample in which every image comes once gives the AP of
`CocoMetrics`. Two detectors are compared on the same resamples, so that what is hard about a drawn
image is hard for both and falls out of the difference. (hotcoco has a paired comparison as well,
but it counts an image that is drawn twice only once, so that its intervals have 0.76 of the width
that they should have.)

Letters: I images, K categories, T IoU thresholds, N detections, P true positives, S resamples,
M caps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import COCO_IOUS, ScoringProblem
from retina.evaluation.matching import Ranking, match_pairs
from retina.evaluation.pairs import Pairs, overlapping_pairs
from retina.structures import BoolArray, FloatArray, IntArray

ALL_AREAS = (0.0, 1e10)
"""COCO's area range of all objects."""

FEW_IMAGES = 20
"""With fewer that have such objects, intervals of the bootstrap are known to be too narrow."""

_RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
_IS_ABOVE = np.arange(101) / 100 < _RECALL_LEVELS
_EPSILON = np.spacing(1)  # pycocotools adds it to the number of detections
_BLOCK_ELEMENTS = 1 << 22
"""Detections × resamples at a time, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class CategoryMatches:
    """What became of the detections of one category that are not ignored at every threshold.

    Attributes:
        images: ``(N,)`` the image of each detection, 0 … I-1; highest score first.
        ranks: ``(N,)`` its rank in its image, 0 for the highest score.
        is_true: ``(T, N)`` whether it has found an object.
        is_ignored: ``(T, N)`` whether it counts neither as true nor as false (crowd regions).
        num_objects: ``(I,)`` that are to be found in each image.
    """

    images: IntArray
    ranks: IntArray
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
    pairs = overlapping_pairs(problem, at_least=COCO_IOUS[0])
    return match_split(problem, pairs, Ranking.of(problem))


def match_split(
    problem: ScoringProblem,
    pairs: Pairs,
    ranking: Ranking,
    area_range: tuple[float, float] = ALL_AREAS,
) -> ImageMatches:
    """Match all detections of a split, up to the problem's highest cap.

    Args:
        problem: of the split.
        pairs: all that overlap by 0.5 at least.
        ranking: of the detections.
        area_range: only objects of these areas are to be found. Others, the detections that have
            found them, and those of other areas that have found nothing are ignored.
    """
    low, high = area_range
    is_out = (problem.truth_areas < low) | (problem.truth_areas > high)
    areas = problem.boxes[:, 2] * problem.boxes[:, 3]
    is_elsewhere = (areas < low) | (areas > high)
    is_counted = ranking.ranks < problem.max_detections[-1]
    pairs = pairs.at(is_counted[pairs.detections])
    is_true = np.zeros((len(COCO_IOUS), len(areas)), dtype=np.bool_)
    is_ignored = np.zeros_like(is_true)
    matchings = match_pairs(problem, pairs, COCO_IOUS, is_out=is_out)
    for row, matching in enumerate(matchings):
        is_true[row] = matching.is_true
        is_ignored[row] = matching.is_ignored | (matching.is_false & is_elsewhere)
    is_counted &= ~is_ignored.all(axis=0)
    order = ranking.order[is_counted[ranking.order]]
    is_object = ~(problem.truth_is_crowd | is_out)
    first = np.searchsorted(problem.categories[order], np.arange(1, problem.num_categories + 2))
    categories = []
    for number in np.unique(problem.truth_categories[is_object]).tolist():
        rows = order[first[number - 1] : first[number]]
        own = problem.truth_images[is_object & (problem.truth_categories == number)] - 1
        categories.append(
            CategoryMatches(
                images=problem.images[rows] - 1,
                ranks=ranking.ranks[rows],
                is_true=is_true[:, rows],
                is_ignored=is_ignored[:, rows],
                num_objects=np.bincount(own, minlength=problem.num_images),
            )
        )
    return ImageMatches(num_images=problem.num_images, categories=tuple(categories))


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
    means: FloatArray = resample(matches, multiplicities).precision.mean(axis=0)
    return means


@dataclass(frozen=True, slots=True)
class Resampled:
    """The means over the categories that have objects, in each resample; -1 where none has any.

    Attributes:
        precision: ``(T, S)`` the average precision at each threshold.
        recall: ``(M, S)`` COCO's average recall at each cap on the detections of an image.
    """

    precision: FloatArray
    recall: FloatArray


def resample(
    matches: ImageMatches, multiplicities: IntArray, caps: Sequence[int] = ()
) -> Resampled:
    """COCO's numbers of each resample.

    Args:
        matches: of one detector.
        multiplicities: ``(S, I)`` how often each image counts.
        caps: M caps; none above that of the matches.
    """
    num_resamples = len(multiplicities)
    # Resamples lie side by side, so that running sums add whole rows.
    by_image = np.ascontiguousarray(multiplicities.T, dtype=np.int32)  # (I, S)
    precision = np.zeros((len(COCO_IOUS), num_resamples))
    recall = np.zeros((len(caps), num_resamples))
    counts = np.zeros(num_resamples)
    for category in matches.categories:
        num_objects = _weighted(category.num_objects, by_image)  # (S,)
        has_objects = num_objects > 0
        counts += has_objects
        block = max(1, _BLOCK_ELEMENTS // max(1, len(category.images)))
        for start in range(0, num_resamples, block):
            part = slice(start, start + block)
            precision[:, part] += _category_precision(
                category, by_image[:, part], num_objects[part]
            )
        for row, cap in enumerate(caps):
            found = (category.is_true & (category.ranks < cap)).sum(axis=0)
            of_image = np.bincount(category.images, found, matches.num_images).astype(np.int64)
            share = _weighted(of_image, by_image) / len(category.is_true)
            recall[row] += np.where(has_objects, share / np.maximum(num_objects, 1), 0.0)
    return Resampled(
        *(np.where(counts > 0, sums / np.maximum(counts, 1), -1.0) for sums in (precision, recall))
    )


def _weighted(of_image: IntArray, by_image: npt.NDArray[np.int32]) -> IntArray:
    """``(S,)`` the sum over the images of each resample, of a count that few images have."""
    rows = np.flatnonzero(of_image)
    sums: IntArray = of_image[rows] @ by_image[rows]
    return sums


def _category_precision(
    category: CategoryMatches, by_image: npt.NDArray[np.int32], num_objects: IntArray
) -> FloatArray:
    """``(T, S)`` the AP of one category in each resample, 0 where it has no object."""
    read = np.flatnonzero(category.is_true.any(axis=0))
    last = int(read[-1]) + 1 if len(read) else 0  # what comes after is never read
    weights = by_image[category.images[:last]]  # (N, S)
    ranks = np.cumsum(weights, axis=0, dtype=np.int32)
    values = np.zeros((len(category.is_true), len(num_objects)))
    for row, (is_true, is_ignored) in enumerate(
        zip(category.is_true[:, :last], category.is_ignored[:, :last], strict=True)
    ):
        # Recall rises at true positives only, so only the precision there is ever read.
        rows = np.flatnonzero(is_true)
        counted = ranks[rows]
        left_out = np.flatnonzero(is_ignored)
        if len(left_out):
            before = np.zeros((len(left_out) + 1, len(num_objects)), dtype=np.int32)
            np.cumsum(weights[left_out], axis=0, out=before[1:])
            counted -= before[np.searchsorted(left_out, rows)]
        true = np.cumsum(weights[rows], axis=0, dtype=np.int32)  # (P, S)
        values[row] = _mean_precision(true, counted, num_objects)
    return np.where(num_objects > 0, values, 0.0)


def _mean_precision(
    true: npt.NDArray[np.int32], counted: npt.NDArray[np.int32], num_objects: IntArray
) -> FloatArray:
    """``(S,)`` the interpolated precision, averaged over the recall levels.

    Args:
        true: ``(P, S)`` true positives up to and including each of them.
        counted: ``(P, S)`` detections up to there that are not ignored.
        num_objects: ``(S,)``.
    """
    precision = true / (counted + _EPSILON)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = _levels_reached(true, num_objects)
    reached[1:] -= reached[:-1].copy()  # each level is read where it is first reached
    means: FloatArray = np.einsum("ps,ps->s", precision, reached) / len(_RECALL_LEVELS)
    return means


def _levels_reached(true: npt.NDArray[np.int32], num_objects: IntArray) -> FloatArray:
    """``(P, S)`` how many recall levels are at most true / objects, compared as pycocotools does.

    A level is i × 0.01, which in float64 is sometimes more than i / 100: a recall of exactly i /
    100 does not reach it then.
    """
    hundredths = 100.0 * true / np.maximum(num_objects, 1)
    whole = np.floor(hundredths)
    falls_short = (whole == hundredths) & _IS_ABOVE[whole.astype(np.int64)]
    levels: FloatArray = whole + 1.0 - falls_short
    return levels


def interval(samples: Iterable[float] | FloatArray, confidence: float) -> tuple[float, float]:
    """The middle part of the samples that holds ``confidence`` of them (percentile interval)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(samples, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)
