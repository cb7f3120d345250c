"""Box coders, which say what a head's numbers mean as boxes, and the list of their configs."""

from typing import Annotated

from retina.configuration import OneOf
from retina.geometry.box_coders.box_coder import BoxCoder, BoxCoderConfig
from retina.geometry.box_coders.deltas import DeltasConfig
from retina.geometry.box_coders.distribution import DistributionConfig

AnyBoxCoderConfig = Annotated[
    BoxCoderConfig,
    OneOf(
        DeltasConfig,
        DistributionConfig,
        default="deltas",  # configs and detector files from when it was the only one have no kind
    ),
]
"""A box coder of any kind."""

__all__ = [
    "AnyBoxCoderConfig",
    "BoxCoder",
    "BoxCoderConfig",
    "DeltasConfig",
    "DistributionConfig",
]
