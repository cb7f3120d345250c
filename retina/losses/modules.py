"""The losses as modules: the options are given once, the call takes logits and targets.

Options and defaults are those of the functions, by keyword, and are all checked at once. Options
per class (sequences and tensors) become buffers, which move with the module, keep their digits
whatever its dtype, and are not part of its state dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from retina.losses.distribution import distribution_focal_loss
from retina.losses.focal import sigmoid_focal_loss
from retina.losses.focal_parameters import check_alpha, check_gamma
from retina.losses.quality import (
    check_quality_focal_options,
    check_varifocal_options,
    quality_focal_loss,
    varifocal_loss,
)
from retina.losses.reduction import check_reduction
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

    _function: ClassVar[Callable[..., Tensor]]
    _checks: ClassVar[Sequence[Callable[..., None]]]
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(
        cls, *, function: Callable[..., Tensor], checks: Sequence[Callable[..., None]]
    ) -> None:
        """Take over the options of a function.

        Args:
            function: of logits and targets, its options by keyword.
            checks: raise ValueError for options that make no sense, which they take by their names.
        """
        cls._function = staticmethod(function)
        cls._checks = (*checks, check_reduction)
        parameters = inspect.signature(function).parameters.values()
        cls.__signature__ = inspect.Signature([p for p in parameters if p.kind is p.KEYWORD_ONLY])

    def __init__(self, **options: Any) -> None:
        super().__init__()
        bound = self.__signature__.bind(**options)
        bound.apply_defaults()
        self._options: dict[str, Any] = bound.arguments
        for check in self._checks:
            known = self._options.keys() & inspect.signature(check).parameters.keys()
            check(**{name: self._options[name] for name in known})
        for name, value in self._options.items():
            if isinstance(value, list | tuple):
                value = torch.tensor(value, dtype=torch.float64)
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """The loss of logits and targets (for a quality as target: and the quality)."""
        return self._function(*inputs, **{**self._options, **dict(self.named_buffers())})

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


class SigmoidFocalLoss(_Loss, function=sigmoid_focal_loss, checks=[check_alpha, check_gamma]):
    """`sigmoid_focal_loss` as a module."""


class SoftmaxFocalLoss(_Loss, function=softmax_focal_loss, checks=[check_softmax_options]):
    """`softmax_focal_loss` as a module."""


class QualityFocalLoss(_Loss, function=quality_focal_loss, checks=[check_quality_focal_options]):
    """`quality_focal_loss` as a module."""


class VarifocalLoss(_Loss, function=varifocal_loss, checks=[check_varifocal_options]):
    """`varifocal_loss` as a module."""


class DistributionFocalLoss(_Loss, function=distribution_focal_loss, checks=[]):
    """`distribution_focal_loss` as a module."""


class DiceLoss(_Loss, function=dice_loss, checks=[check_region_options]):
    """`dice_loss` as a module."""


class TverskyLoss(_Loss, function=tversky_loss, checks=[check_region_options]):
    """`tversky_loss` as a module."""


class FocalTverskyLoss(_Loss, function=focal_tversky_loss, checks=[check_region_options]):
    """`focal_tversky_loss` as a module."""


class UnifiedFocalLoss(_Loss, function=unified_focal_loss, checks=[check_unified_options]):
    """`unified_focal_loss` as a module."""
