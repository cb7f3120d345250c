"""Crowd regions: places that are neither object nor background."""

from __future__ import annotations

import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iof
from retina.structures import Anchors, BatchedTargets


def inside_crowd(anchors: Anchors, targets: BatchedTargets, threshold: float) -> Tensor:
    """``(B, R)`` bool: more than ``threshold`` of the anchor's area lies in one crowd region.

    One object row at a time, so that memory does not grow with the number of objects. A CPU batch
    without any crowd region returns at once; on an accelerator asking would be a synchronisation.
    """
    batch, num_objects = targets.is_crowd.shape
    is_crowd = targets.is_crowd & targets.is_object
    inside = torch.zeros(batch, len(anchors), dtype=torch.bool, device=anchors.boxes.device)
    if is_crowd.device.type == "cpu":
        rows = is_crowd.any(dim=0).nonzero().flatten().tolist()
    else:
        rows = list(range(num_objects))
    for row in rows:
        fraction = pairwise_iof(anchors.boxes, targets.boxes[:, row : row + 1].float())  # (B, R, 1)
        inside |= (fraction[..., 0] > threshold) & is_crowd[:, row : row + 1]
    return inside
