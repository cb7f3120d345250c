"""Which detections and annotations of one image and class overlap, found without any loop.

A set of 20,000 images has two million detections, but only few of them touch an object of their own
class: these pairs are all that a matching looks at.

Letters: N detections, G annotations, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from retina.evaluation.engines import ScoringProblem
from retina.structures import BoolArray, FloatArray, IntArray

_BLOCK = 1 << 21
"""Pairs at a time, so that memory stays bounded where images are crowded."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """A detection and an annotation each that overlap.

    Attributes:
        detections: ``(P,)`` rows of the problem's detections.
        annotations: ``(P,)`` rows of its annotations.
        overlaps: ``(P,)`` intersection over union; over the detection's own area where
            `overlapping_pairs` was told so.
    """

    detections: IntArray
    annotations: IntArray
    overlaps: FloatArray

    def at(self, rows: BoolArray | IntArray) -> Self:
        """Only some of the pairs."""
        return type(self)(self.detections[rows], self.annotations[rows], self.overlaps[rows])

    def best_first(self) -> Self:
        """By detection, then the largest overlap, then as COCO breaks ties: the last annotation."""
        return self.at(np.lexsort((-self.annotations, -self.overlaps, self.detections)))


def overlapping_pairs(
    problem: ScoringProblem, *, at_least: float, over_own_area: BoolArray
) -> Pairs:
    """All pairs within an image and a class whose overlap reaches a threshold.

    The overlaps are, bit for bit, those of pycocotools.

    Args:
        problem: of the split.
        at_least: the threshold.
        over_own_area: ``(G,)`` annotations for which the intersection is divided by the area of the
            detection alone, as COCO does for crowd regions.
    """
    blocks = [
        _reaching(problem, at_least, over_own_area, detections, annotations)
        for detections, annotations in _candidates(problem)
    ]
    empty = np.zeros(0, dtype=np.int64)
    return Pairs(
        np.concatenate([empty, *(block.detections for block in blocks)]),
        np.concatenate([empty, *(block.annotations for block in blocks)]),
        np.concatenate([np.zeros(0), *(block.overlaps for block in blocks)]),
    )


def _candidates(problem: ScoringProblem) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs of one image and class, a block at a time."""
    width = problem.num_categories + 1
    truth = problem.truth_images * width + problem.truth_categories
    order = np.argsort(truth, kind="stable")
    found = problem.images * width + problem.categories
    first = np.searchsorted(truth, found, side="left", sorter=order)
    counts = np.searchsorted(truth, found, side="right", sorter=order) - first
    rows = np.flatnonzero(counts)  # most detections have no object of their class
    block_of = np.cumsum(counts[rows]) // _BLOCK
    for part in np.split(rows, np.flatnonzero(np.diff(block_of)) + 1):
        if len(part):
            numbers = counts[part]
            within = np.arange(numbers.sum()) - np.repeat(np.cumsum(numbers) - numbers, numbers)
            yield np.repeat(part, numbers), order[np.repeat(first[part], numbers) + within]


def _reaching(
    problem: ScoringProblem,
    at_least: float,
    over_own_area: BoolArray,
    detections: IntArray,
    annotations: IntArray,
) -> Pairs:
    found, truth = problem.boxes[detections].T, problem.truth_boxes[annotations].T
    sides = [
        np.minimum(found[axis + 2] + found[axis], truth[axis + 2] + truth[axis])
        - np.maximum(found[axis], truth[axis])
        for axis in (0, 1)
    ]
    touches = (sides[0] > 0) & (sides[1] > 0)
    detections, annotations = detections[touches], annotations[touches]
    shared = sides[0][touches] * sides[1][touches]
    own = (found[2] * found[3])[touches]
    other = (truth[2] * truth[3])[touches]
    union = np.where(over_own_area[annotations], own, own + other - shared)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        overlaps = shared / union
    keep = overlaps >= at_least
    return Pairs(detections[keep], annotations[keep], overlaps[keep])
