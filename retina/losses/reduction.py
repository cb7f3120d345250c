"""What becomes of the losses of a batch: all of them, their sum or their mean."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["none", "sum", "mean"]


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless it is one of them."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', is {reduction!r}")


def reduced(loss: Tensor, reduction: Reduction, divisor: Tensor | float) -> Tensor:
    """The losses, their sum, or their sum over ``divisor`` (0 where that is 0).

    Args:
        loss: any shape.
        reduction: one that `check_reduction` has seen.
        divisor: of the mean, a number or ``()``, ≥ 0.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if isinstance(divisor, Tensor):
        return loss.sum() / torch.where(divisor > 0, divisor, 1)
    return loss.sum() / (divisor or 1)
