"""The classification losses to train a detector with, and the list of their configs."""

from typing import Annotated

from retina.configuration import OneOf
from retina.objective.classification.base import (
    ClassificationConfig,
    ClassificationLoss,
    FocalView,
)
from retina.objective.classification.equalized_focal import EqualizedFocalConfig
from retina.objective.classification.focal import ClassBalancedFocalConfig, FocalConfig
from retina.objective.classification.labels import IGNORED, anchor_labels
from retina.objective.classification.quality import QualityFocalConfig, VarifocalConfig

AnyClassificationConfig = Annotated[
    ClassificationConfig,
    OneOf(
        FocalConfig,
        QualityFocalConfig,
        VarifocalConfig,
        ClassBalancedFocalConfig,
        EqualizedFocalConfig,
    ),
]
"""A classification loss of any kind."""

__all__ = [
    "IGNORED",
    "AnyClassificationConfig",
    "ClassBalancedFocalConfig",
    "ClassificationConfig",
    "ClassificationLoss",
    "EqualizedFocalConfig",
    "FocalConfig",
    "FocalView",
    "QualityFocalConfig",
    "VarifocalConfig",
    "anchor_labels",
]
