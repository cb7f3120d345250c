"""The losses as modules: the options are given once, the call takes logits and targets.

Options per class (sequences and tensors) become buffers, which move with the module, keep their
digits whatever its dtype, and are not part of its state dict. All options are checked at once.
Arguments and defaults are those of the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from retina.losses.focal import sigmoid_focal_loss
from retina.losses.focal_parameters import Alpha, Gamma, check_alpha, check_gamma
from retina.losses.quality import (
    check_quality_focal_options,
    check_varifocal_options,
    quality_focal_loss,
    varifocal_loss,
)
from retina.losses.reduction import Reduction, check_reduction
from retina.losses.region import (
    check_region_options,
    dice_loss,
    focal_tversky_loss,
    tversky_loss,
)
from retina.losses.softmax_focal import check_softmax_options, softmax_focal_loss
from retina.losses.unified_focal import check_unified_options, unified_focal_loss


class _Loss(nn.Module):
    """A function with its options."""

    def __init__(self, function: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self._function = function
        self._options = options
        for name, value in options.items():
            if isinstance(value, list | tuple):
                value = torch.tensor(value, dtype=torch.float64)
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """The loss of logits and targets (for a quality as target: and the quality)."""
        buffers = dict(self.named_buffers())
        return self._function(*inputs, **{**self._options, **buffers})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device. A dtype is for a network: in float16 an alpha of 0.9999 would be 1."""
        given = dict(self._buffers)
        for name, value in given.items():  # in float32, since some devices know no float64
            self._buffers[name] = None if value is None else value.float()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in given.items():
            moved = self._buffers[name]
            if value is not None and moved is not None:
                dtype = torch.float32 if moved.device.type == "mps" else value.dtype
                self._buffers[name] = value.to(moved.device, dtype)
        return self

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._options.items())


class SigmoidFocalLoss(_Loss):
    """`sigmoid_focal_loss` as a module."""

    def __init__(
        self,
        *,
        alpha: Alpha = 0.25,
        gamma: Gamma = 2.0,
        reduction: Reduction = "none",
        ignore_index: int | None = None,
    ) -> None:
        check_alpha(alpha)
        check_gamma(gamma)
        check_reduction(reduction)
        super().__init__(
            sigmoid_focal_loss,
            alpha=alpha,
            gamma=gamma,
            reduction=reduction,
            ignore_index=ignore_index,
        )


class SoftmaxFocalLoss(_Loss):
    """`softmax_focal_loss` as a module."""

    def __init__(
        self,
        *,
        gamma: Gamma = 2.0,
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "none",
    ) -> None:
        check_softmax_options(gamma, class_weights, label_smoothing, reduction)
        super().__init__(
            softmax_focal_loss,
            gamma=gamma,
            class_weights=class_weights,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )


class QualityFocalLoss(_Loss):
    """`quality_focal_loss` as a module."""

    def __init__(
        self,
        *,
        beta: float = 2.0,
        ignore_index: int | None = None,
        reduction: Reduction = "none",
    ) -> None:
        check_quality_focal_options(beta)
        check_reduction(reduction)
        super().__init__(
            quality_focal_loss, beta=beta, ignore_index=ignore_index, reduction=reduction
        )


class VarifocalLoss(_Loss):
    """`varifocal_loss` as a module."""

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        ignore_index: int | None = None,
        reduction: Reduction = "none",
    ) -> None:
        check_varifocal_options(alpha, gamma)
        check_reduction(reduction)
        super().__init__(
            varifocal_loss,
            alpha=alpha,
            gamma=gamma,
            ignore_index=ignore_index,
            reduction=reduction,
        )


class DiceLoss(_Loss):
    """`dice_loss` as a module."""

    def __init__(
        self,
        *,
        smooth: float = 1e-6,
        include_background: bool = True,
        pool_batch: bool = False,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_region_options(smooth=smooth, reduction=reduction)
        super().__init__(
            dice_loss,
            smooth=smooth,
            include_background=include_background,
            pool_batch=pool_batch,
            ignore_index=ignore_index,
            reduction=reduction,
        )


class TverskyLoss(_Loss):
    """`tversky_loss` as a module."""

    def __init__(
        self,
        *,
        delta: float = 0.7,
        smooth: float = 1e-6,
        include_background: bool = True,
        pool_batch: bool = False,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_region_options(delta=delta, smooth=smooth, reduction=reduction)
        super().__init__(
            tversky_loss,
            delta=delta,
            smooth=smooth,
            include_background=include_background,
            pool_batch=pool_batch,
            ignore_index=ignore_index,
            reduction=reduction,
        )


class FocalTverskyLoss(_Loss):
    """`focal_tversky_loss` as a module."""

    def __init__(
        self,
        *,
        delta: float = 0.7,
        gamma: float = 0.75,
        smooth: float = 1e-6,
        include_background: bool = True,
        pool_batch: bool = False,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_region_options(delta=delta, smooth=smooth, gamma=gamma, reduction=reduction)
        super().__init__(
            focal_tversky_loss,
            delta=delta,
            gamma=gamma,
            smooth=smooth,
            include_background=include_background,
            pool_batch=pool_batch,
            ignore_index=ignore_index,
            reduction=reduction,
        )


class UnifiedFocalLoss(_Loss):
    """`unified_focal_loss` as a module."""

    def __init__(
        self,
        *,
        asymmetric: bool = True,
        weight: float = 0.5,
        delta: float = 0.6,
        gamma: float = 0.5,
        smooth: float = 1e-7,
        pool_batch: bool = False,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_unified_options(weight, delta, gamma, smooth, reduction)
        super().__init__(
            unified_focal_loss,
            asymmetric=asymmetric,
            weight=weight,
            delta=delta,
            gamma=gamma,
            smooth=smooth,
            pool_batch=pool_batch,
            ignore_index=ignore_index,
            reduction=reduction,
        )
