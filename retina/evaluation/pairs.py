"""Which detections overlap which annotations, whatever their classes: what matching is made from.

Most detections overlap few annotations, so the pairs are kept as a list and not as a matrix for
each image. The overlaps are those of the COCO engines to the last bit.

Letters: N detections, G annotations, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.engines import ScoringProblem
from retina.structures import BoolArray, FloatArray, IntArray

_BLOCK_PAIRS = 1 << 20
"""Pairs looked at at a time, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Detections and annotations of one image that overlap, by detection, then by annotation.

    Attributes:
        detections: ``(P,)``.
        annotations: ``(P,)``.
        overlaps: ``(P,)`` float64, the IoU; for a crowd region the share of the detection in it.
    """

    detections: IntArray
    annotations: IntArray
    overlaps: FloatArray

    def __len__(self) -> int:
        return len(self.overlaps)

    def at(self, rows: BoolArray | IntArray) -> Pairs:
        """Some of them."""
        return Pairs(self.detections[rows], self.annotations[rows], self.overlaps[rows])


def overlapping_pairs(problem: ScoringProblem, *, at_least: float) -> Pairs:
    """All pairs of a split that overlap by at least so much, which is above 0."""
    return pairs_of_boxes(
        problem.images,
        problem.boxes,
        problem.truth_images,
        problem.truth_boxes,
        problem.truth_is_crowd,
        at_least=at_least,
    )


def pairs_of_boxes(
    images: IntArray,
    boxes: FloatArray,
    truth_images: IntArray,
    truth_boxes: FloatArray,
    truth_is_crowd: BoolArray,
    *,
    at_least: float,
) -> Pairs:
    """The same for any boxes.

    Args:
        images: ``(N,)`` of the first boxes.
        boxes: ``(N, 4)`` (x, y, width, height).
        truth_images: ``(G,)`` of the second boxes.
        truth_boxes: ``(G, 4)``.
        truth_is_crowd: ``(G,)`` whose overlap is the share of the first box.
        at_least: the smallest overlap of a pair, above 0.
    """
    by_image = np.argsort(truth_images, kind="stable")
    first = np.searchsorted(truth_images, images, side="left", sorter=by_image)
    counts = np.searchsorted(truth_images, images, side="right", sorter=by_image) - first
    ends = np.cumsum(counts)
    parts = [_no_pairs()]
    start = 0
    while start < len(images):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BLOCK_PAIRS, side="right")))
        of_block = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), of_block)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(of_block) - of_block, of_block)
        columns = by_image[first[rows] + within]
        overlaps = _overlaps(boxes[rows], truth_boxes[columns], truth_is_crowd[columns])
        parts.append(Pairs(rows, columns, overlaps).at(overlaps >= at_least))
        start = stop
    return Pairs(
        np.concatenate([part.detections for part in parts]),
        np.concatenate([part.annotations for part in parts]),
        np.concatenate([part.overlaps for part in parts]),
    )


def _no_pairs() -> Pairs:
    return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _overlaps(boxes: FloatArray, others: FloatArray, is_crowd: BoolArray) -> FloatArray:
    """``(P,)`` row by row, in the order of the operations that pycocotools has; NaN for no area."""
    x, y, width, height = boxes.T
    other_x, other_y, other_width, other_height = others.T
    shared_width = np.minimum(x + width, other_x + other_width) - np.maximum(x, other_x)
    shared_height = np.minimum(y + height, other_y + other_height) - np.maximum(y, other_y)
    shared = np.maximum(shared_width, 0.0) * np.maximum(shared_height, 0.0)
    area, other_area = width * height, other_width * other_height
    with np.errstate(divide="ignore", invalid="ignore"):
        overlaps: FloatArray = shared / np.where(is_crowd, area, area + other_area - shared)
    return overlaps
