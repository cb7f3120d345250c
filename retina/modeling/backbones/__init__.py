"""Backbones: one file or folder each, and the list of their configs."""

from typing import Annotated

from retina.configuration import OneOf
from retina.modeling.backbones.backbone import Backbone, BackboneConfig, FeatureSpec
from retina.modeling.backbones.resnet import ResNetConfig
from retina.modeling.backbones.timm import TimmConfig

AnyBackboneConfig = Annotated[
    BackboneConfig,
    OneOf(
        ResNetConfig,
        TimmConfig,
    ),
]
"""A backbone of any kind."""

__all__ = [
    "AnyBackboneConfig",
    "Backbone",
    "BackboneConfig",
    "FeatureSpec",
    "ResNetConfig",
    "TimmConfig",
]
