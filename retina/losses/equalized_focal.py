r"""Equalized Focal Loss for long-tailed classes (Li et al. 2022).

"Equalized Focal Loss for Dense Long-Tailed Object Detection", eq. 4, for class j:

.. math:: EFL_j = -\frac{\gamma_j}{\gamma_b} \alpha_t (1 - p_t)^{\gamma_j} \log(p_t),
          \quad \gamma_j = \gamma_b + s (1 - g_j)

g_j is the gradient that the class has had from its positives over that from its negatives, at most
1: a rare class, drowned in negatives, gets a stronger focus, and more weight on what is hard.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from retina.distributed import sum_over_ranks
from retina.losses.focal import FocalSums, sums_of_class_indices
from retina.losses.focal_parameters import (
    DEFAULT_ALPHA,
    DEFAULT_GAMMA,
    FocalParameters,
    check_alpha,
    focal_parameters,
)
from retina.losses.focal_targets import (
    are_class_indices,
    check_class_indices,
    counted_and_class,
    widened,
)

DEFAULT_SCALE = 8.0
"""s: what the paper takes for LVIS."""


class EqualizedFocalLoss(nn.Module):
    """The loss and what it has learned about its classes.

    In training mode each call watches the gradient that comes back to its logits. Call `update`
    once for each optimizer step, after the backward pass and on every rank: it adds what was seen,
    over all ranks, to the state. State and focus are buffers of the state dict, so that a resumed
    run goes on with them.

    The paper adds up gradients as they come. Here each step's are first divided by their sum over
    all classes, so that neither loss scaling nor the size of a batch makes a step count for more.

    Args:
        num_classes: K.
        alpha: the foreground's weight in (0, 1), the background has ``1 - alpha``; None for none.
        gamma: γ_b > 0, the focus of a class whose gradients are in balance.
        scale: s ≥ 0, how much focus a class without any positive gradient gains.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | None = DEFAULT_ALPHA,
        gamma: float = DEFAULT_GAMMA,
        scale: float = DEFAULT_SCALE,
    ) -> None:
        super().__init__()
        check_alpha(alpha)
        if not 0 < gamma < math.inf or not 0 <= scale < math.inf:
            raise ValueError(
                f"gamma must be above 0 and scale at least 0, both finite, are {gamma} and {scale}"
            )
        self.alpha = alpha
        self.gamma = gamma
        self.scale = scale
        self.positive_gradient: Tensor
        self.negative_gradient: Tensor
        self._seen: Tensor
        self.register_buffer("positive_gradient", torch.zeros(num_classes))
        self.register_buffer("negative_gradient", torch.zeros(num_classes))
        self.register_buffer("_seen", torch.zeros(2, num_classes), persistent=False)

    def balance(self) -> Tensor:
        """``(K,)`` g in 0..1; 1 before anything was seen."""
        ratio = self.positive_gradient / self.negative_gradient.clamp(min=1e-12)
        return torch.where(self.negative_gradient > 0, ratio.clamp(max=1.0), 1.0)

    def focus(self) -> Tensor:
        """``(K,)`` the γ_j of each class, γ_b + s (1 - g)."""
        return self.gamma + self.scale * (1 - self.balance())

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        ignore_index: int | None = None,
        row_weights: Tensor | None = None,
    ) -> FocalSums:
        """The summed loss.

        Args:
            logits: ``(..., K)``.
            targets: integers ``(...)``: ``0 .. K-1`` the class, ``K`` the background.
            ignore_index: the target whose row has no loss.
            row_weights: ``(...)`` factors of the rows, not differentiated.

        Raises:
            ValueError: the targets are no class indices of these logits, or out of range.
        """
        targets = widened(targets)
        if not are_class_indices(logits, targets):
            raise ValueError(
                f"targets {tuple(targets.shape)} must be class indices of shape "
                f"{tuple(logits.shape[:-1])}"
            )
        check_class_indices(targets, logits.shape[-1], ignore_index)
        _, is_class = counted_and_class(targets, logits.shape[-1], ignore_index)
        if self.training and torch.is_grad_enabled() and logits.requires_grad:
            logits = logits.view_as(logits)  # a hook of this call alone
            logits.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._watch(gradient, targets, is_class)
            )
        weights = None if row_weights is None else row_weights.detach()
        return sums_of_class_indices(
            logits, targets, self._of_all_classes(logits, ignore_index), weights
        )

    def _of_all_classes(self, logits: Tensor, ignore_index: int | None) -> FocalParameters:
        """A focal loss with γ_j, whose two weights have the factor γ_j / γ_b."""
        plain = focal_parameters(self.alpha, self.focus(), ignore_index, logits)
        factor = plain.gamma / self.gamma
        return FocalParameters(
            plain.foreground * factor, plain.background * factor, plain.gamma, ignore_index
        )

    def _watch(self, gradient: Tensor, targets: Tensor, is_class: Tensor) -> None:
        size = gradient.detach().abs()
        own = torch.where(is_class, targets, 0).long()
        positive = size.gather(-1, own.unsqueeze(-1)).squeeze(-1).to(self._seen.dtype) * is_class
        self._seen[0].scatter_add_(0, own.flatten(), positive.flatten())
        self._seen[1] += size.reshape(-1, size.shape[-1]).sum(0, dtype=self._seen.dtype)

    @torch.no_grad()
    def update(self) -> None:
        """Take the gradients that were seen since the last call into the state."""
        positive, all_of_it = sum_over_ranks(self._seen)
        total = all_of_it.sum()
        is_usable = total.isfinite() & (total > 0)  # a loss scale that is too high overflows
        share = torch.where(is_usable, 1 / total, 0.0)
        for state, seen in (
            (self.positive_gradient, positive),
            (self.negative_gradient, (all_of_it - positive).clamp(min=0)),
        ):
            state += torch.where(is_usable, seen * share, 0.0)
        self._seen.zero_()
