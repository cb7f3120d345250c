"""The sigmoid focal loss, with an α that is given or comes from the class counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from retina.losses.class_balance import DEFAULT_BETA, class_balanced_alpha
from retina.losses.focal import FocalSums, focal_loss_sums
from retina.losses.focal_parameters import DEFAULT_ALPHA, DEFAULT_GAMMA, Alpha, check_alpha
from retina.objective.classification.base import (
    ClassificationConfig,
    ClassificationLoss,
    FocalView,
    check_one_per_class,
)
from retina.objective.classification.labels import IGNORED


class FocalClassification(ClassificationLoss):
    """Sigmoid focal loss, with one α or one for each class."""

    def __init__(self, *, alpha: float | Sequence[float] | None, gamma: float) -> None:
        super().__init__()
        # One weight per class lives on the device: copying it there in each step would wait.
        self.alpha: Alpha
        if isinstance(alpha, Sequence):
            self.register_buffer("alpha", torch.tensor(alpha), persistent=False)
        else:
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
        return focal_loss_sums(
            logits,
            labels,
            alpha=self.alpha,
            gamma=self.gamma,
            ignore_index=IGNORED,
            row_weights=row_weights,
        )


class FocalConfig(ClassificationConfig):
    """Sigmoid focal loss over all anchors (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    alpha: float | tuple[float, ...] | None = DEFAULT_ALPHA
    """Weight of the foreground in (0, 1), or one per class; null (or 1) weighs nothing."""
    gamma: Annotated[float, Field(ge=0.0)] = DEFAULT_GAMMA
    """Focusing parameter; 0 is cross-entropy. Tune it first, then alpha."""

    @field_validator("alpha")
    @classmethod
    def _alpha_makes_sense(
        cls, alpha: float | tuple[float, ...] | None
    ) -> float | tuple[float, ...] | None:
        check_alpha(alpha)
        return alpha

    def build(self, class_counts: Sequence[int] | None = None) -> FocalClassification:
        """The loss; the counts do not matter."""
        return FocalClassification(alpha=self.alpha, gamma=self.gamma)

    def check_classes(self, class_names: Sequence[str]) -> None:
        """See `ClassificationConfig`."""
        if isinstance(self.alpha, tuple):
            check_one_per_class("alpha", self.alpha, "weights", class_names)

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """This loss itself: it is a focal loss."""
        return FocalView(self.gamma, self.alpha)


class ClassBalancedFocalConfig(ClassificationConfig):
    """Focal loss whose alpha of each class comes from its frequency (Cui et al. 2019)."""

    kind: Literal["class_balanced_focal"] = "class_balanced_focal"
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = DEFAULT_ALPHA
    """Weight of the foreground for the average object; rare classes get more, frequent less."""
    beta: Annotated[float, Field(ge=0.0, lt=1.0)] = DEFAULT_BETA
    """How long another example of a class is worth something: a class is worth 1/(1 - beta)
    examples at most; 0 treats all classes alike."""
    gamma: Annotated[float, Field(ge=0.0)] = DEFAULT_GAMMA
    """Focusing parameter, the same for all classes."""
    class_counts: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Objects of each class, in the order of the classes; null counts the training set."""

    @property
    def needs_class_counts(self) -> bool:
        """True unless the config has them."""
        return self.class_counts is None

    def build(self, class_counts: Sequence[int] | None = None) -> FocalClassification:
        """The loss.

        Args:
            class_counts: the objects of each class in the training set, for a config without any.

        Raises:
            ValueError: there are no counts at all.
        """
        counts = self.class_counts if self.class_counts is not None else class_counts
        if counts is None:
            raise ValueError(
                "objective.classification: class_balanced_focal needs the number of objects of "
                "each class; pass class_counts to build(), or write them in the config"
            )
        alpha = class_balanced_alpha(counts, beta=self.beta, alpha=self.alpha)
        return FocalClassification(alpha=alpha.tolist(), gamma=self.gamma)

    def check_classes(self, class_names: Sequence[str]) -> None:
        """See `ClassificationConfig`."""
        if self.class_counts is not None:
            check_one_per_class("class_counts", self.class_counts, "counts", class_names)

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """This loss itself where there are counts, else that of the average object."""
        if self.class_counts is None and class_counts is None:
            why = "its α of each class needs the class counts, which are not known"
            return FocalView(self.gamma, self.alpha, why, lacks_class_counts=True)
        alpha = torch.as_tensor(self.build(class_counts).alpha)  # float32, as the loss has it
        return FocalView(self.gamma, tuple(alpha.tolist()))
