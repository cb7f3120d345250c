"""Normalisation layers of a backbone."""

from __future__ import annotations

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


class _WithActivation(nn.Module):
    """A normalisation that also does what timm fuses into its own: a dropout and the activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        activated: Tensor = self.act(self.drop(super().forward(x)))
        return activated


class FrozenBatchNormAct2d(_WithActivation, FrozenBatchNorm2d):
    """`FrozenBatchNorm2d`, then an activation."""


class SyncBatchNormAct2d(_WithActivation, nn.SyncBatchNorm):
    """`nn.SyncBatchNorm`, then an activation."""


def set_norms(network: nn.Module, kind: NormKind, eps: float | None) -> None:
    """Make all batch normalisation of a network of one kind; its state stays.

    Args:
        network: with plain `nn.BatchNorm2d`, which are replaced in place, or timm's, which have an
            activation in them.
        kind: which layers it shall have.
        eps: what they add to the variance; None leaves each its own.
    """
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        if eps is not None:
            layer.eps = eps
        if kind != "batch":
            parent, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(parent), own_name, _of_kind(layer, kind))


def _of_kind(layer: nn.BatchNorm2d, kind: Literal["frozen", "sync"]) -> nn.Module:
    has_activation = hasattr(layer, "act")
    new: nn.Module
    if kind == "sync":
        make = SyncBatchNormAct2d if has_activation else nn.SyncBatchNorm
        new = make(layer.num_features, layer.eps, layer.momentum)
    else:
        new = (FrozenBatchNormAct2d if has_activation else FrozenBatchNorm2d)(
            layer.num_features, eps=layer.eps
        )
    if has_activation:
        new.drop, new.act = layer.drop, layer.act
    new.load_state_dict(layer.state_dict())
    return new
