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


def set_norms(network: nn.Module, kind: NormKind, eps: float) -> None:
    """Make all batch normalisation of a network of one kind; its state stays.

    Args:
        network: with plain `nn.BatchNorm2d`, which are replaced in place.
        kind: which layers it shall have.
        eps: what they add to the variance.
    """
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        layer.eps = eps
        if kind == "batch":
            continue
        new: nn.Module
        if kind == "sync":
            new = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        else:
            new = FrozenBatchNorm2d(layer.num_features, eps=eps)
            new.load_state_dict(layer.state_dict())
        parent, _, own_name = name.rpartition(".")
        setattr(network.get_submodule(parent), own_name, new)
