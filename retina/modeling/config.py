"""The configuration of a whole detector."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field

from retina.configuration import Config
from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import AnyBoxCoderConfig, DeltasConfig
from retina.modeling.backbones import AnyBackboneConfig, ResNetConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.head import HeadConfig
from retina.modeling.pyramid import PyramidConfig

MemoryFormat = Literal["channels_last", "contiguous"]

_MEMORY_FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


class ModelConfig(Config):
    """The parts of a detector."""

    backbone: AnyBackboneConfig = Field(default_factory=ResNetConfig)
    """The network that turns an image into feature maps, and what is frozen of it."""
    pyramid: PyramidConfig = Field(default_factory=PyramidConfig)
    """The levels that are made of the feature maps: P3 to P7, and P2 where the finest map is C2."""
    head: HeadConfig = Field(default_factory=HeadConfig)
    """The two subnets that predict classes and boxes at every anchor of every level."""
    anchors: AnchorConfig = Field(default_factory=AnchorConfig)
    """Which boxes the predictions are about."""
    box_coder: AnyBoxCoderConfig = Field(default_factory=DeltasConfig)
    """What the numbers mean that are predicted for a box."""

    memory_format: MemoryFormat = "channels_last"
    """The layout of weights and feature maps. `channels_last` is faster; `contiguous` is what
    torchvision computes in: in float32 sums are made in the same order, and the results are equal
    to the last bit."""

    def build(self, num_classes: int) -> RetinaNet:
        """The detector for K classes.

        Its weights are initialised, the backbone's are loaded where the config names some.

        Raises:
            UserError: the parts do not fit each other, or there are no such weights.
        """
        backbone = self.backbone.build()
        pyramid = self.pyramid.build(backbone.feature_specs)
        anchor_generator = self.anchors.build(pyramid.strides)
        box_coder = self.box_coder.build()
        head = self.head.build(
            in_channels=pyramid.channels,
            num_anchors=anchor_generator.num_per_cell[0],
            num_classes=num_classes,
            num_box_outputs=box_coder.num_outputs,
            num_levels=len(pyramid.strides),
        )
        detector = RetinaNet(
            backbone=backbone,
            pyramid=pyramid,
            head=head,
            anchor_generator=anchor_generator,
            box_coder=box_coder,
        )
        return detector.to(memory_format=_MEMORY_FORMATS[self.memory_format])

    def without_pretrained_weights(self) -> Self:
        """The same detector with random weights: for one whose weights are loaded afterwards."""
        return self.model_copy(update={"backbone": self.backbone.without_weights()})
