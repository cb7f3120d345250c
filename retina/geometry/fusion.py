"""Boxes of one object, seen in several views, become one."""

from __future__ import annotations

from typing import Literal

import torch

from retina.geometry.boxes import pairwise_iou
from retina.geometry.suppression import suppress
from retina.structures import Detections

Merge = Literal["nms", "weighted"]
"""How boxes of one object become one: see `fuse`."""

_PAIRS = 2**22
"""Overlaps that are computed at a time."""


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


def _nearest(
    boxes: torch.Tensor, centers: torch.Tensor, iou_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each box the best it overlaps most, and whether that is more than the threshold."""
    parts = torch.split(boxes, max(1, _PAIRS // max(1, len(centers))))
    overlaps, group = zip(
        *(pairwise_iou(part.double(), centers.double()).max(dim=1) for part in parts), strict=True
    )
    return torch.cat(group), torch.cat(overlaps) > iou_threshold
