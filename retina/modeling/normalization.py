"""Normalisation layers of a pretrained trunk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

NormKind = Literal["frozen", "batch", "sync"]


class FrozenBatchNorm2d(TorchvisionFrozenBatchNorm2d):  # type: ignore[misc]
    """Batch normalisation whose statistics and affine parameters are constants.

    The same state and the same result as torchvision's layer, which keeps float32 activations under
    autocast and runs several elementwise passes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape and precision."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            # One fused kernel, whose arithmetic is float32 inside.
            return torch.batch_norm(
                x, self.weight, self.bias, self.running_mean, self.running_var,
                False, 0.0, self.eps, torch.backends.cudnn.enabled,
            )  # fmt: skip
        # Unlike batch_norm, this keeps no copy of x for the backward pass.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (value.to(x.dtype)[None, :, None, None] for value in (scale, shift))
        return torch.addcmul(shift, x, scale)


def norm_layer(kind: NormKind, eps: float) -> Callable[[int], nn.Module]:
    """What makes a normalisation layer of so many channels."""
    layers: dict[NormKind, type[nn.Module]] = {
        "frozen": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "sync": nn.SyncBatchNorm,
    }
    return partial(layers[kind], eps=eps)
