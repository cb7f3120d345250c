"""The classification target of every anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from retina.structures import Assignment, BatchedTargets

IGNORED = -1
"""The label of an anchor that has no classification loss."""


def anchor_labels(assignment: Assignment, targets: BatchedTargets, num_classes: int) -> Tensor:
    """``(B, R)`` int64: ``0 .. K-1`` the class of the object, K the background, or `IGNORED`."""
    labels = targets.labels.gather(1, assignment.target_index)
    labels = torch.where(assignment.is_foreground, labels, num_classes)
    return torch.where(assignment.is_ignored, IGNORED, labels)
