"""Non-maximum suppression: of boxes that overlap, the best one stays."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from retina.structures import BoolArray, FloatArray, IntArray

_MANY = 32
"""From so many boxes of a class on, torchvision's loop over them is faster than our rounds."""
_TINY = np.finfo(np.float64).tiny


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, *, limit: int
) -> Tensor:
    """The rows that stay, best first, at most ``limit``: ``(n,)`` int64.

    In each class the best box stays and removes those that overlap it by more than the threshold,
    then the best of the rest does, and so on; of equal scores the lower row is the better one.
    The classes are kept apart by looking at one at a time, not by offsets, which would round far
    boxes; and overlaps are computed in float64, where the area of a float32 box is exact.

    Args:
        boxes: ``(N, 4)``, finite; in host memory as the rest, so that all devices decide alike.
        scores: ``(N,)``.
        labels: ``(N,)`` int64.
        iou_threshold: the overlap that is still allowed.
        limit: how many are wanted.
    """
    order = scores.sort(descending=True, stable=True).indices
    # Which of the best boxes stay is decided among them: of thousands few have to be looked at.
    best = order[: 4 * limit] if len(order) > 10 * limit else order
    kept = best[_stays(boxes[best].double(), labels[best], iou_threshold)]
    if len(kept) < limit and len(best) < len(order):
        kept = order[_stays(boxes[order].double(), labels[order], iou_threshold)]
    return kept[:limit]


def _stays(boxes: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """``(N,)`` bool, of boxes in the order of their scores."""
    rows = labels.sort(stable=True).indices.numpy()  # class by class, best first
    starts, sizes = _runs(labels.numpy()[rows])
    stays = torch.zeros(len(boxes), dtype=torch.bool)
    for start, size in zip(starts[sizes >= _MANY], sizes[sizes >= _MANY], strict=True):
        members = torch.from_numpy(rows[start : start + size])
        falling = torch.arange(size, 0, -1, dtype=boxes.dtype)
        stays[members[nms(boxes[members], falling, iou_threshold)]] = True
    rest = rows[np.repeat(sizes < _MANY, sizes)]
    _best_of_each(boxes.numpy(), labels.numpy(), rest, iou_threshold, stays.numpy())
    return stays


def _runs(labels: IntArray) -> tuple[IntArray, IntArray]:
    """Where each class begins in sorted labels, and how many of it there are."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    return starts, np.diff(starts, append=len(labels))


def _best_of_each(
    boxes: FloatArray, labels: IntArray, rows: IntArray, iou_threshold: float, stays: BoolArray
) -> None:
    """Mark those of some rows that stay: in each round the best one left of every class.

    Args:
        boxes: ``(N, 4)``.
        labels: ``(N,)``.
        rows: ``(M,)``, class by class, best first.
        iou_threshold: the overlap that is still allowed.
        stays: ``(N,)``, where True is written.
    """
    labels, (x1, y1, x2, y2) = labels[rows], np.ascontiguousarray(boxes[rows].T)
    while len(rows):
        starts, sizes = _runs(labels)
        stays[rows[starts]] = True
        best = np.repeat(starts, sizes)  # (M,) of the own class
        width = np.minimum(x2, x2[best]) - np.maximum(x1, x1[best])
        height = np.minimum(y2, y2[best]) - np.maximum(y1, y1[best])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        areas = (x2 - x1) * (y2 - y1)
        union = areas[best] + areas - shared
        remains = shared / np.maximum(union, _TINY) <= iou_threshold  # 0 without any area
        remains[starts] = False
        rows, labels = rows[remains], labels[remains]
        x1, y1, x2, y2 = x1[remains], y1[remains], x2[remains], y2[remains]
