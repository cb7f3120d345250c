"""Which pixels a network expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ChannelOrder = Literal["rgb", "bgr"]
PerChannel = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Pixels:
    """What is made of the pixels of an image before a network sees them.

    Attributes:
        channel_order: as the network sees them.
        mean: subtracted from red, green and blue (always in this order), where 1 is white.
        std: what red, green and blue are then divided by.
    """

    channel_order: ChannelOrder
    mean: PerChannel
    std: PerChannel


IMAGENET = Pixels("rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What torchvision's published classifiers were trained on."""
