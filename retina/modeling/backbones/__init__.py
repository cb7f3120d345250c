"""Backbones: one file each, and the union of their configs."""

from retina.modeling.backbones.backbone import Backbone, FeatureSpec
from retina.modeling.backbones.resnet import ResNetConfig

# With a second member this becomes Annotated[A | B, Field(discriminator="kind")]: pydantic refuses
# a discriminator on a single type.
BackboneConfig = ResNetConfig

__all__ = ["Backbone", "BackboneConfig", "FeatureSpec", "ResNetConfig"]
