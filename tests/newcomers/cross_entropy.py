"""A classification loss: plain cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal import FocalSums
from retina.objective.classification.base import ClassificationConfig, ClassificationLoss
from retina.objective.classification.labels import IGNORED


class CrossEntropy(ClassificationLoss):
    """Cross-entropy of every anchor and class; nothing weighs less than anything else."""

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """See `ClassificationLoss`."""
        num_classes = logits.shape[-1]
        classes = torch.arange(num_classes, device=logits.device)
        wanted = (labels.unsqueeze(-1) == classes).float()
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none").sum(-1)
        each = torch.where(labels == IGNORED, 0.0, each)
        each = each if row_weights is None else each * row_weights
        is_class = (labels >= 0) & (labels < num_classes)
        return FocalSums(each.sum(), torch.where(is_class, each.detach(), 0.0).sum())


class CrossEntropyConfig(ClassificationConfig):
    """Cross-entropy over all anchors."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    def build(self, class_counts: Sequence[int] | None = None) -> CrossEntropy:
        """The loss; the counts do not matter."""
        return CrossEntropy()
