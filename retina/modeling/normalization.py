"""Normalisation layers of a pretrained trunk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

NormKind = Literal["frozen", "batch", "sync"]


class FrozenBatchNorm2d(TorchvisionFrozenBatchNorm2d):  # type: ignore[misc]
    """Batch normalisation whose statistics and affine parameters are constants.

    The same state and, in float32, the same result as torchvision's layer to the last bit. That one
    turns the activations of autocast back into float32 and holds one more copy of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape and precision."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (value.to(x.dtype)[:, None, None] for value in (scale, shift))
        normalised: Tensor = x * scale
        return normalised.add_(shift)


def norm_layer(kind: NormKind, eps: float) -> Callable[[int], nn.Module]:
    """What makes a normalisation layer of so many channels."""
    layers: dict[NormKind, type[nn.Module]] = {
        "frozen": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "sync": nn.SyncBatchNorm,
    }
    return partial(layers[kind], eps=eps)
