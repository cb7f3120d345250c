"""3×3 convolutions in two parts, for processors: a depthwise one, and a pointwise one.

Chollet 2017, "Xception": about an eighth of the multiplications of a 3×3 convolution that is wide.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from retina.modeling.depthwise import DepthwiseConv2d

Convs = Literal["standard", "separable"]
"""``standard``: one 3×3 convolution; ``separable``: a depthwise 3×3 and a pointwise one."""


def depthwise(channels: int, *, stride: int = 1) -> nn.Conv2d:
    """The part that mixes pixels, each channel for itself."""
    return DepthwiseConv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)


def separable(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """Both parts without a norm or an activation, in the place of a 3×3 convolution with bias.

    Its variance is the input's at first, as of the convolutions of torchvision's pyramid.
    """
    parts = nn.Sequential(
        depthwise(in_channels, stride=stride), nn.Conv2d(in_channels, out_channels, 1)
    )
    for conv in parts:
        nn.init.kaiming_uniform_(conv.weight, a=1)  # type: ignore[arg-type]
    nn.init.zeros_(parts[1].bias)  # type: ignore[arg-type]
    return parts
