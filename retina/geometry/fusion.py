"""Boxes of one object, seen in several views, become one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.geometry.suppression import suppress
from retina.structures import Detections

Merge = Literal["nms", "weighted"]
"""How boxes of one object become one: see `fuse`."""

_AT_A_TIME = 128
"""Boxes whose overlaps are computed together."""


def fuse(
    found: Detections, *, iou_threshold: float, merge: Merge = "nms", num_views: int | None = None
) -> Detections:
    """Detections of several views of one image, each object once, highest score first.

    `nms` keeps the best box of each object as it is, by non-maximum suppression in each class.
    `weighted` moves that box to the mean of all boxes that it stands for, weighted by their scores,
    as weighted box fusion does (Solovyev, Wang and Gabruseva 2021); but boxes gather around the
    best one of them (Gidaris and Komodakis 2015), not around a mean that moves with each.

    Args:
        found: of all views, in pixels of the image.
        iou_threshold: boxes of one class that overlap by more are of one object.
        merge: one of the two.
        num_views: of the whole image. With `weighted` the score is then the mean over the views,
            where one that does not see the object counts 0; else it is the best one's.
    """
    kept = suppress(found.boxes, found.scores, found.labels, iou_threshold, limit=len(found))
    best = Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
    return best if merge == "nms" else _with_means(best, found, iou_threshold, num_views)


def _with_means(
    best: Detections, found: Detections, iou_threshold: float, num_views: int | None
) -> Detections:
    boxes, scores = best.boxes.clone(), best.scores.clone()
    for label in sorted(set(best.labels.tolist())):
        of_class = (best.labels == label).nonzero().flatten()
        members = (found.labels == label).nonzero().flatten()
        group, belongs = _nearest(found.boxes[members], best.boxes[of_class], iou_threshold)
        members, group = members[belongs], group[belongs]
        weights = found.scores[members].double()
        sums = weights.new_zeros(len(of_class), 5)
        weighted = torch.cat([found.boxes[members].double(), torch.ones_like(weights[:, None])], 1)
        sums.index_add_(0, group, weighted * weights[:, None])
        has_weight = sums[:, 4] > 0  # scores may be 0
        rows = of_class[has_weight]
        boxes[rows] = (sums[has_weight, :4] / sums[has_weight, 4:]).float()
        if num_views is not None:
            counts = torch.bincount(group, minlength=len(of_class))
            scores[of_class] = (sums[:, 4] / counts.clamp(min=num_views)).float()
    order = scores.sort(descending=True, stable=True).indices
    return Detections(boxes[order], scores[order], best.labels[order])


def _nearest(boxes: Tensor, centers: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Of each box the centre it overlaps most, and whether that is more than the threshold."""
    group = torch.zeros(len(boxes), dtype=torch.int64)
    overlap = torch.zeros(len(boxes), dtype=torch.float64)
    # From left to right, so that a few boxes at a time meet only the centres around them.
    for rows in torch.split(boxes[:, 0].argsort(stable=True), _AT_A_TIME):
        left, right = boxes[rows, 0].min(), boxes[rows, 2].max()
        near = ((centers[:, 2] > left) & (centers[:, 0] < right)).nonzero().flatten()
        if len(near):
            best = pairwise_iou(boxes[rows].double(), centers[near].double()).max(dim=1)
            group[rows], overlap[rows] = near[best.indices], best.values
    return group, overlap > iou_threshold
