"""The focal losses whose score learns to be the IoU of its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from retina.losses.focal import FocalSums
from retina.losses.focal_parameters import DEFAULT_GAMMA
from retina.losses.quality import (
    DEFAULT_BETA,
    VARIFOCAL_ALPHA,
    quality_focal_loss_sums,
    varifocal_loss_sums,
)
from retina.objective.classification.base import (
    ClassificationConfig,
    ClassificationLoss,
    FocalView,
)
from retina.objective.classification.labels import IGNORED


class QualityFocalClassification(ClassificationLoss):
    """Quality focal loss: the score learns to be the IoU."""

    needs_quality = True

    def __init__(self, *, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """See `ClassificationLoss`."""
        assert quality is not None
        return quality_focal_loss_sums(
            logits, labels, quality, beta=self.beta, ignore_index=IGNORED, row_weights=row_weights
        )


class QualityFocalConfig(ClassificationConfig):
    """Quality focal loss (Li et al. 2020): the target of the foreground is its box's IoU."""

    kind: Literal["quality_focal"] = "quality_focal"
    beta: Annotated[float, Field(ge=0.0)] = DEFAULT_BETA
    """The exponent of the error that fades what is nearly right."""

    def build(self, class_counts: Sequence[int] | None = None) -> QualityFocalClassification:
        """The loss; the counts do not matter."""
        return QualityFocalClassification(beta=self.beta)

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """That with the same exponent of the error."""
        return self._seen_through(gamma=self.beta)


class VarifocalClassification(ClassificationLoss):
    """Varifocal loss: the score learns to be the IoU, and good boxes count for more."""

    needs_quality = True

    def __init__(self, *, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """See `ClassificationLoss`."""
        assert quality is not None
        return varifocal_loss_sums(
            logits,
            labels,
            quality,
            alpha=self.alpha,
            gamma=self.gamma,
            ignore_index=IGNORED,
            row_weights=row_weights,
        )


class VarifocalConfig(ClassificationConfig):
    """Varifocal loss (Zhang et al. 2021): IoU as target and as weight of the foreground."""

    kind: Literal["varifocal"] = "varifocal"
    alpha: Annotated[float, Field(gt=0.0)] = VARIFOCAL_ALPHA
    """Weight of the background; the foreground has its IoU as weight."""
    gamma: Annotated[float, Field(ge=0.0)] = DEFAULT_GAMMA
    """Focusing parameter of the background; the foreground is not faded."""

    def build(self, class_counts: Sequence[int] | None = None) -> VarifocalClassification:
        """The loss; the counts do not matter."""
        return VarifocalClassification(alpha=self.alpha, gamma=self.gamma)

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """That with the same γ; its α is another thing."""
        return self._seen_through(gamma=self.gamma)
