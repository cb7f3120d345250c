"""The equalized focal loss, which learns during training how its classes are doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from retina.losses.equalized_focal import DEFAULT_SCALE, EqualizedFocalLoss
from retina.losses.focal import FocalSums
from retina.losses.focal_parameters import DEFAULT_ALPHA, DEFAULT_GAMMA
from retina.objective.classification.base import (
    ClassificationConfig,
    ClassificationLoss,
    FocalView,
)
from retina.objective.classification.labels import IGNORED


class EqualizedFocalClassification(ClassificationLoss):
    """Equalized focal loss: classes that are drowned in negatives get a stronger focus."""

    def __init__(self, loss: EqualizedFocalLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """See `ClassificationLoss`."""
        sums: FocalSums = self.loss(logits, labels, ignore_index=IGNORED, row_weights=row_weights)
        return sums

    def end_step(self) -> None:
        """Take this step's gradients into the balance of the classes."""
        self.loss.update()


class EqualizedFocalConfig(ClassificationConfig):
    """Equalized focal loss for long-tailed classes (Li et al. 2022)."""

    kind: Literal["equalized_focal"] = "equalized_focal"
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] | None = DEFAULT_ALPHA
    """Weight of the foreground in (0, 1); null weighs nothing."""
    gamma: Annotated[float, Field(gt=0.0)] = DEFAULT_GAMMA
    """Focusing parameter of a class whose positives and negatives are in balance."""
    scale: Annotated[float, Field(ge=0.0)] = DEFAULT_SCALE
    """How much a class gains on gamma whose positives have no gradient beside its negatives."""

    @property
    def needs_class_counts(self) -> bool:
        """True: it keeps a state for each class."""
        return True

    def build(self, class_counts: Sequence[int] | None = None) -> EqualizedFocalClassification:
        """The loss.

        Args:
            class_counts: one entry per class; only their number matters.

        Raises:
            ValueError: the number of classes is not known.
        """
        if class_counts is None:
            raise ValueError(
                "objective.classification: equalized_focal keeps a state for each class; pass "
                "class_counts to build(), so that it knows how many there are"
            )
        return EqualizedFocalClassification(
            EqualizedFocalLoss(
                len(class_counts), alpha=self.alpha, gamma=self.gamma, scale=self.scale
            )
        )

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """That of a class whose gradients are in balance."""
        return self._seen_through(gamma=self.gamma, alpha=self.alpha)
