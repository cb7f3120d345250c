"""The classification losses that a detector can be trained with: one file each, and their union."""

from typing import Annotated

from pydantic import Field

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
    FocalConfig
    | QualityFocalConfig
    | VarifocalConfig
    | ClassBalancedFocalConfig
    | EqualizedFocalConfig,
    Field(discriminator="kind"),
]
"""Every kind that ``objective.classification`` takes; a new one is one line here."""

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
