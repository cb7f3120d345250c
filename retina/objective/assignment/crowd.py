"""Crowd regions: places that are neither object nor background."""

from __future__ import annotations

import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iof
from retina.structures import Anchors, BatchedTargets


def inside_crowd(anchors: Anchors, targets: BatchedTargets, threshold: float) -> Tensor:
    """``(B, R)`` bool: more than ``threshold`` of the anchor's area lies in one crowd region.

    One object row at a time, and only rows that hold a crowd region in some image, so that neither
    memory nor time grows with the number of objects.
    """
    batch = targets.is_crowd.shape[0]
    is_crowd = targets.is_crowd & targets.is_object
    inside = torch.zeros(batch, len(anchors), dtype=torch.bool, device=anchors.boxes.device)
    for row in targets.crowd_rows:
        fraction = pairwise_iof(anchors.boxes, targets.boxes[:, row : row + 1].float())  # (B, R, 1)
        inside |= (fraction[..., 0] > threshold) & is_crowd[:, row : row + 1]
    return inside
