"""What every backbone is to the rest of the detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The shape of one feature map.

    Attributes:
        channels: its width.
        stride: pixels of the image per cell.
    """

    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """Turns images into feature maps C3, C4 and C5, finest first."""

    @property
    @abstractmethod
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Width and stride of each feature map that `forward` gives."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps ``(B, channels, H, W)`` of normalised images ``(B, 3, H, W)``."""
