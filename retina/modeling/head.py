"""The two subnets that every pyramid level shares (RetinaNet, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

from retina.configuration import Config
from retina.errors import UserError
from retina.modeling.separable import Convs, depthwise
from retina.structures import DensePredictions

HeadNorm = Literal["none", "group"]

_WEIGHT_STD = 0.01
"""Standard deviation of the initial weights of every 3×3 convolution."""


class HeadConfig(Config):
    """The class subnet and the box subnet."""

    num_convs: Annotated[int, Field(ge=0, le=64)] = 4
    """3×3 convolutions of each subnet before its output layer."""
    channels: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Width of these convolutions; null takes the pyramid's."""
    convs: Convs = "standard"
    """``separable`` makes a depthwise and a pointwise convolution of each 3×3 one, of the output
    layers too: a light head for processors."""
    norm: HeadNorm = "none"
    """Normalisation after each of these convolutions: ``none``, or ``group``."""
    num_groups: Annotated[int, Field(ge=1)] = 32
    """Groups of the group normalisation; the width must be a multiple of it."""
    prior_probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """π: the score that every anchor starts with (equation in section 4.1)."""
    level_scales: bool = False
    """Learn a factor for each pyramid level, at first 1, on what the box subnet puts out."""

    def build(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        num_box_outputs: int = 4,
        num_levels: int = 5,
    ) -> RetinaHead:
        """The head for a pyramid.

        Args:
            in_channels: width of the pyramid.
            num_anchors: per cell.
            num_classes: K.
            num_box_outputs: values for each box, as the box coder wants them.
            num_levels: of the pyramid.

        Raises:
            UserError: the width cannot be divided into the groups.
        """
        channels = self.channels or in_channels
        if self.norm == "group" and channels % self.num_groups:
            raise UserError(
                f"head: {channels} channels cannot be divided into num_groups={self.num_groups}; "
                f"choose num_groups={math.gcd(channels, self.num_groups)} or another width"
            )
        subnet = partial(
            Subnet,
            in_channels=in_channels,
            channels=channels,
            num_convs=self.num_convs,
            convs=self.convs,
            norm=partial(nn.GroupNorm, self.num_groups) if self.norm == "group" else None,
            num_anchors=num_anchors,
        )
        prior = self.prior_probability
        return RetinaHead(
            classification=subnet(
                num_outputs=num_classes, output_bias=-math.log((1 - prior) / prior)
            ),
            box_regression=subnet(num_outputs=num_box_outputs, output_bias=0.0),
            num_scales=num_levels if self.level_scales else 0,
        )


class Subnet(nn.Module):
    """A stack of 3×3 convolutions with ReLU and an output convolution.

    Args:
        in_channels: of the pyramid.
        channels: of the convolutions in between.
        num_convs: how many of them.
        convs: of which kind they and the output convolution are.
        norm: makes the normalisation after each of them; None for none.
        num_anchors: A, anchors per cell.
        num_outputs: values for each anchor.
        output_bias: the initial bias of the output convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        num_convs: int,
        convs: Convs,
        norm: Callable[[int], nn.Module] | None,
        num_anchors: int,
        num_outputs: int,
        output_bias: float,
    ) -> None:
        super().__init__()
        self.num_anchors, self.num_outputs = num_anchors, num_outputs
        widths = [in_channels] + [channels] * num_convs
        if convs == "standard":
            layers = [
                Conv2dNormActivation(width, channels, norm_layer=norm) for width in widths[:-1]
            ]
        else:
            layers = [_separable_layer(width, channels, norm) for width in widths[:-1]]
            layers.append(depthwise(widths[-1]))  # the output convolution is its pointwise part
        self.convs = nn.Sequential(*layers)
        side = 3 if convs == "standard" else 1
        self.output = nn.Conv2d(widths[-1], num_anchors * num_outputs, side, padding=side // 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_initial_deviation(module))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.output.bias, output_bias)  # type: ignore[arg-type]

    def forward(self, level: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, H, W, A, outputs)``, a view of the convolution's output."""
        output: Tensor = self.output(self.convs(level))  # (B, A·outputs, H, W)
        batch, _, height, width = output.shape
        return output.permute(0, 2, 3, 1).view(
            batch, height, width, self.num_anchors, self.num_outputs
        )


def _separable_layer(
    in_channels: int, channels: int, norm: Callable[[int], nn.Module] | None
) -> nn.Module:
    pointwise = Conv2dNormActivation(in_channels, channels, kernel_size=1, norm_layer=norm)
    return nn.Sequential(depthwise(in_channels), pointwise)


def _initial_deviation(conv: nn.Conv2d) -> float:
    """Of its weights, such that both parts of a separable convolution do as a 3×3 one in variance.

    The depthwise part, a sum over nine pixels, keeps it; the pointwise one is a sum over a ninth of
    the values.
    """
    if conv.groups > 1:
        return 1 / 3
    return _WEIGHT_STD * 3 if conv.kernel_size == (1, 1) else _WEIGHT_STD


class RetinaHead(nn.Module):
    """Class logits and box codes at every anchor, with the same weights on every level.

    Args:
        classification: gives K logits for each anchor.
        box_regression: gives a box code for each anchor.
        num_scales: how many levels have a factor of their own on their box codes; 0 for none.
    """

    def __init__(
        self, *, classification: Subnet, box_regression: Subnet, num_scales: int = 0
    ) -> None:
        super().__init__()
        self.num_classes = classification.num_outputs
        self.num_anchors = classification.num_anchors
        self.classification = classification
        self.box_regression = box_regression
        self.level_scales = nn.Parameter(torch.ones(num_scales)) if num_scales else None

    def forward(self, levels: Sequence[Tensor]) -> DensePredictions:
        """The predictions of all levels."""
        return DensePredictions(
            class_logits=tuple(self.classification(level) for level in levels),
            box_codes=tuple(self._box_codes(*numbered) for numbered in enumerate(levels)),
        )

    def _box_codes(self, number: int, level: Tensor) -> Tensor:
        codes: Tensor = self.box_regression(level)
        return codes if self.level_scales is None else codes * self.level_scales[number]
