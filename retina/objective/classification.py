"""The classification losses that a detector can be trained with, all with one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from retina.configuration import Config
from retina.losses.class_balance import class_balanced_alpha
from retina.losses.equalized_focal import EqualizedFocalLoss
from retina.losses.focal import Alpha, FocalSums, check_alpha, focal_loss_sums
from retina.losses.quality import quality_focal_loss_sums, varifocal_loss_sums

IGNORED = -1
"""The label of an anchor that has no classification loss."""

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Weight = Annotated[float, Field(gt=0.0, lt=1.0)]


class ClassificationLoss(nn.Module, ABC):
    """The summed classification loss of the anchors of one level.

    What a loss learns during training are buffers of its state dict.
    """

    needs_quality: ClassVar[bool] = False
    """Whether the target is how well the predicted box fits, which then must be computed."""

    @abstractmethod
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """The loss, and the share of it that comes from the foreground.

        Args:
            logits: ``(B, HWA, K)``.
            labels: ``(B, HWA)`` int64: ``0 .. K-1`` the class, K the background, `IGNORED`.
            row_weights: ``(B, HWA)`` factors of the anchors, not differentiated; None is 1.
            quality: ``(B, HWA)`` in 0..1, not differentiated: the overlap (IoU) of the predicted
                with the matched box; read on the foreground, and only where `needs_quality`.
        """

    def softened(self, max_gamma: float) -> ClassificationLoss | None:
        """The loss for suspect labels, whose γ is at most ``max_gamma``; None has no such form."""
        return None

    def end_step(self) -> None:
        """Called once in each optimizer step on every rank, after its backward passes."""
        return


class FocalClassification(ClassificationLoss):
    """Sigmoid focal loss."""

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

    def softened(self, max_gamma: float) -> FocalClassification:
        """See `ClassificationLoss`."""
        alpha = self.alpha.tolist() if isinstance(self.alpha, Tensor) else self.alpha
        return FocalClassification(alpha=alpha, gamma=min(self.gamma, max_gamma))


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
            logits,
            labels,
            quality,
            beta=self.beta,
            ignore_index=IGNORED,
            row_weights=row_weights,
        )

    def softened(self, max_gamma: float) -> QualityFocalClassification:
        """See `ClassificationLoss`; its β is what γ is elsewhere."""
        return QualityFocalClassification(beta=min(self.beta, max_gamma))


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

    def softened(self, max_gamma: float) -> VarifocalClassification:
        """See `ClassificationLoss`."""
        return VarifocalClassification(alpha=self.alpha, gamma=min(self.gamma, max_gamma))


class EqualizedFocalClassification(ClassificationLoss):
    """Equalized focal loss: classes that are drowned in negatives get a stronger focus."""

    def __init__(self, num_classes: int, *, alpha: float | None, gamma: float, scale: float):
        super().__init__()
        self.loss = EqualizedFocalLoss(num_classes, alpha=alpha, gamma=gamma, scale=scale)

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


class FocalConfig(Config):
    """Sigmoid focal loss over all anchors (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    needs_class_counts: ClassVar[bool] = False
    alpha: float | tuple[float, ...] | None = 0.25
    """Weight of the foreground in (0, 1), or one per class; null (or 1) weighs nothing."""
    gamma: NotNegative = 2.0
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


class QualityFocalConfig(Config):
    """Quality focal loss (Li et al. 2020): the target of the foreground is its box's IoU."""

    kind: Literal["quality_focal"] = "quality_focal"
    needs_class_counts: ClassVar[bool] = False
    beta: NotNegative = 2.0
    """The exponent of the error that fades what is nearly right."""

    def build(self, class_counts: Sequence[int] | None = None) -> QualityFocalClassification:
        """The loss; the counts do not matter."""
        return QualityFocalClassification(beta=self.beta)


class VarifocalConfig(Config):
    """Varifocal loss (Zhang et al. 2021): IoU as target and as weight of the foreground."""

    kind: Literal["varifocal"] = "varifocal"
    needs_class_counts: ClassVar[bool] = False
    alpha: Positive = 0.75
    """Weight of the background; the foreground has its IoU as weight."""
    gamma: NotNegative = 2.0
    """Focusing parameter of the background; the foreground is not faded."""

    def build(self, class_counts: Sequence[int] | None = None) -> VarifocalClassification:
        """The loss; the counts do not matter."""
        return VarifocalClassification(alpha=self.alpha, gamma=self.gamma)


class ClassBalancedFocalConfig(Config):
    """Focal loss whose alpha of each class comes from its frequency (Cui et al. 2019)."""

    kind: Literal["class_balanced_focal"] = "class_balanced_focal"
    needs_class_counts: ClassVar[bool] = True
    alpha: Weight = 0.25
    """Weight of the foreground for the average object; rare classes get more, frequent less."""
    beta: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """How long another example of a class is worth something: a class is worth 1/(1 - beta)
    examples at most; 0 treats all classes alike."""
    gamma: NotNegative = 2.0
    """Focusing parameter."""
    class_counts: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Objects of each class, in the order of the classes; null counts the training set."""

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


class EqualizedFocalConfig(Config):
    """Equalized focal loss for long-tailed classes (Li et al. 2022)."""

    kind: Literal["equalized_focal"] = "equalized_focal"
    needs_class_counts: ClassVar[bool] = True
    alpha: Weight | None = 0.25
    """Weight of the foreground in (0, 1); null weighs nothing."""
    gamma: Positive = 2.0
    """Focusing parameter of a class whose positives and negatives are in balance."""
    scale: NotNegative = 8.0
    """How much a class gains on gamma whose positives have no gradient beside its negatives."""

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
            len(class_counts), alpha=self.alpha, gamma=self.gamma, scale=self.scale
        )


ClassificationConfig = Annotated[
    FocalConfig
    | QualityFocalConfig
    | VarifocalConfig
    | ClassBalancedFocalConfig
    | EqualizedFocalConfig,
    Field(discriminator="kind"),
]
"""A new loss is a function in losses/, and a config and a module here."""
