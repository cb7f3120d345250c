"""Rows of class indices that are not all negatives: those with a class, and those left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters


@dataclass(frozen=True, slots=True)
class MarkedRows:
    """The marked ones among R rows, in order.

    Attributes:
        rows: ``(F,)`` int64, whose target is a class.
        classes: ``(F,)`` int64, that class.
        ignored: ``(I,)`` int64, the rows to leave out.
    """

    rows: Tensor
    classes: Tensor
    ignored: Tensor

    @classmethod
    def find(cls, targets: Tensor, num_classes: int, ignore_index: int | None) -> Self:
        """Read ``(R,)`` integer targets."""
        is_class = targets < num_classes
        if ignore_index is None:
            ignored = torch.empty(0, dtype=torch.int64)
        else:
            is_ignored = targets == ignore_index
            is_class &= ~is_ignored
            ignored = is_ignored.nonzero().squeeze(1)
        rows = is_class.nonzero().squeeze(1)
        return cls(rows=rows, classes=targets[rows].long(), ignored=ignored)

    def split(self, num_rows: int, rows_per_block: int) -> list[MarkedRows]:
        """Those of each block of rows, counted from the start of their block."""
        starts = torch.arange(0, num_rows + rows_per_block, rows_per_block)
        bounds = torch.searchsorted(self.rows, starts).tolist()
        ignored_bounds = torch.searchsorted(self.ignored, starts).tolist()
        return [
            MarkedRows(
                rows=self.rows[bounds[i] : bounds[i + 1]] - i * rows_per_block,
                classes=self.classes[bounds[i] : bounds[i + 1]],
                ignored=self.ignored[ignored_bounds[i] : ignored_bounds[i + 1]]
                - i * rows_per_block,
            )
            for i in range(len(starts) - 1)
        ]


@dataclass(frozen=True, slots=True)
class OwnClasses:
    """The loss of the rows' own classes, and its derivative by the logit: ``(F,)`` each."""

    loss: Tensor
    slope: Tensor

    def times(self, factors: Tensor | float) -> OwnClasses:
        """Both multiplied."""
        return OwnClasses(self.loss * factors, self.slope * factors)


def own_classes(logits: Tensor, marked: MarkedRows, parameters: FocalParameters) -> OwnClasses:
    """The positives: z = -x in the formulas of `retina.losses.focal_reference`.

    Args:
        logits: ``(R, K)``.
        marked: its marked rows.
        parameters: α and γ.
    """
    x = logits[marked.rows, marked.classes]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    foreground, gamma = parameters.foreground, parameters.gamma
    if isinstance(foreground, Tensor):
        foreground = foreground[marked.classes]
    if isinstance(gamma, Tensor):
        gamma = gamma[marked.classes]
    miss, hit = torch.sigmoid(-x), torch.sigmoid(x)  # 1 - p_t, p_t
    cross_entropy = -F.logsigmoid(x)
    weight = foreground * torch.pow(miss, gamma)
    return OwnClasses(
        loss=weight * cross_entropy, slope=-weight * (miss + gamma * hit * cross_entropy)
    )
