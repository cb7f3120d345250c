"""The feature pyramid P3 to P7 (Lin et al. 2017, FPN; RetinaNet's footnote 2 for P6 and P7)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from retina.configuration import Config
from retina.modeling.backbones.backbone import FeatureSpec
from retina.modeling.separable import Convs, separable

CoarseSource = Literal["c5", "p5"]


class PyramidConfig(Config):
    """How the levels are made of the backbone's feature maps."""

    channels: Annotated[int, Field(ge=1, le=16_384)] = 256
    """How many channels every level has."""
    p6_from: CoarseSource = "c5"
    """Which map P6 is computed from: the backbone's last or the pyramid's last."""
    convs: Convs = "standard"
    """``separable`` makes a depthwise and a pointwise convolution of each 3×3 one: a light pyramid
    for processors."""

    def build(self, feature_specs: Sequence[FeatureSpec]) -> Pyramid:
        """The pyramid on top of a backbone's feature maps."""
        return Pyramid(
            feature_specs=feature_specs,
            channels=self.channels,
            p6_from=self.p6_from,
            convs=self.convs,
        )


class CoarseLevels(LastLevelP6P7):  # type: ignore[misc]  # torchvision has no types
    """P6 and P7, in float32 on a CPU under autocast.

    oneDNN's bf16 convolution with stride 2 reads memory that nothing wrote where its input is 3×2
    or 1×1 (seen with torch 2.14 on AMX): on small images, garbage or NaN. The two convolutions are
    small; at full size they cost nothing that could be measured.
    """

    def forward(
        self, p: list[Tensor], c: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """The levels with P6 and P7 added; arguments and result as in torchvision."""
        if p[-1].device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            levels: tuple[list[Tensor], list[str]] = super().forward(p, c, names)
            return levels
        with torch.autocast("cpu", enabled=False):
            added, names = super().forward([p[-1].float()], [c[-1].float()], names)
        return [*p, *added[1:]], names


class Pyramid(nn.Module):
    """One level per feature map with a top-down path, and two coarser levels above.

    Args:
        feature_specs: width and stride of the backbone's feature maps, finest first.
        channels: width of every level.
        p6_from: the source of the first coarse level.
        convs: of which kind the 3×3 convolutions are.
    """

    def __init__(
        self,
        *,
        feature_specs: Sequence[FeatureSpec],
        channels: int,
        p6_from: CoarseSource,
        convs: Convs,
    ) -> None:
        super().__init__()
        last = feature_specs[-1]
        coarse_channels = channels if p6_from == "p5" else last.channels
        coarse = CoarseLevels(coarse_channels, channels)
        # torchvision takes P5 whenever the widths are equal, which they may be by chance.
        coarse.use_P5 = p6_from == "p5"
        self.fpn = FeaturePyramidNetwork(
            [spec.channels for spec in feature_specs], channels, extra_blocks=coarse
        )
        if convs == "separable":
            for level in range(len(feature_specs)):
                self.fpn.layer_blocks[level] = separable(channels, channels)
            coarse.p6 = separable(coarse_channels, channels, stride=2)
            coarse.p7 = separable(channels, channels, stride=2)
        self.channels = channels
        self.strides = (
            *(spec.stride for spec in feature_specs),
            last.stride * 2,
            last.stride * 4,
        )

    def forward(self, feature_maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All levels ``(B, channels, H, W)``, finest first."""
        named = OrderedDict((str(level), maps) for level, maps in enumerate(feature_maps))
        levels: dict[str, Tensor] = self.fpn(named)
        return tuple(levels.values())
