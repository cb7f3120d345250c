"""Box regression losses, one value per box."""

from __future__ import annotations

from typing import Literal, assert_never

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

BoxLoss = Literal["l1", "smooth_l1", "giou", "diou", "ciou"]

COMPARES_BOXES: frozenset[BoxLoss] = frozenset({"giou", "diou", "ciou"})
"""The losses that compare boxes; the others compare encoded deltas."""

DEFAULT_BETA = 1 / 9
"""Where smooth-L1 turns linear, in units of deltas."""


def box_loss(
    predicted: Tensor, wanted: Tensor, kind: BoxLoss, *, beta: float = DEFAULT_BETA
) -> Tensor:
    """The loss of every box.

    Args:
        predicted: ``(..., 4)`` boxes (x1, y1, x2, y2) for the IoU losses, else encoded deltas.
        wanted: the same for the truth.
        kind: ``l1``; ``smooth_l1`` (Huber, quadratic below ``beta``); ``giou`` (Rezatofighi et al.
            2019); ``diou`` and ``ciou`` (Zheng et al. 2020).
        beta: where smooth-L1 turns linear, in units of deltas.

    Returns:
        ``(...)``, the sum over the four coordinates for l1 and smooth_l1.
    """
    match kind:
        case "l1":
            return F.l1_loss(predicted, wanted, reduction="none").sum(dim=-1)
        case "smooth_l1":
            return F.smooth_l1_loss(predicted, wanted, reduction="none", beta=beta).sum(dim=-1)
        case "giou":
            loss: Tensor = generalized_box_iou_loss(predicted, wanted)
        case "diou":
            loss = distance_box_iou_loss(predicted, wanted)
        case "ciou":
            loss = complete_box_iou_loss(predicted, wanted)
        case _:
            assert_never(kind)
    return loss
