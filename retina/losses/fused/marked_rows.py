"""Rows of class indices that are not all negatives: those with a class, and those left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters


@dataclass(frozen=True, slots=True)
class Marks:
    """What is marked in a block of rows, None for nothing.

    Attributes:
        own: int64 positions of own classes in the flattened block.
        ignored: int64, the rows to leave out.
    """

    own: Tensor | None
    ignored: Tensor | None

    def silence(self, values: Tensor) -> None:
        """Make the marked entries of ``(rows, K)`` contiguous values 0."""
        if self.own is not None:
            values.view(-1).index_fill_(0, self.own, 0)
        if self.ignored is not None:
            values.index_fill_(0, self.ignored, 0)


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

    def split(self, num_rows: int, num_classes: int, step: int) -> list[Marks]:
        """The marks of each block of ``step`` rows, counted from the start of the block."""
        starts = torch.arange(0, num_rows + step, step)
        own = self.rows * num_classes + self.classes
        owns = _pieces(own, starts * num_classes)
        ignored = _pieces(self.ignored, starts)
        return [Marks(*pair) for pair in zip(owns, ignored, strict=True)]


def _pieces(numbers: Tensor, starts: Tensor) -> list[Tensor | None]:
    """Sorted numbers cut at ``starts``, each piece counted from its start; None where empty."""
    bounds = torch.searchsorted(numbers, starts).tolist()
    return [
        numbers[first:last] - start if last > first else None
        for first, last, start in zip(bounds, bounds[1:], starts.tolist(), strict=False)
    ]


@dataclass(frozen=True, slots=True)
class OwnClasses:
    """The loss of the rows' own classes, and its derivative by the logit: ``(F,)`` each."""

    loss: Tensor
    slope: Tensor

    def times(self, factors: Tensor | float) -> OwnClasses:
        """Loss and slope times one factor, or one for each of the rows."""
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
