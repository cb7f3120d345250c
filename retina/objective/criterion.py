"""The losses of dense predictions over all anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from retina.configuration import Config
from retina.geometry.box_coder import BoxCoder
from retina.losses.box import COMPARES_BOXES, BoxLoss, box_loss
from retina.losses.focal import Alpha, check_alpha, sigmoid_focal_loss
from retina.objective.assignment import Assigner, AssignerConfig, MaxIoUConfig
from retina.structures import Anchors, BatchedTargets, DensePredictions, DetectionLosses

Normalizer = Literal["foreground", "per_image", "moving_average"]

IGNORED = -1


class FocalConfig(Config):
    """Sigmoid focal loss over all anchors (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    alpha: float | tuple[float, ...] | None = 0.25
    """Weight of the foreground in (0, 1), or one per class; null (or 1) weighs nothing."""
    gamma: Annotated[float, Field(ge=0.0)] = 2.0
    """Focusing parameter; 0 is cross-entropy. Tune it first, then alpha."""

    @field_validator("alpha")
    @classmethod
    def _alpha_makes_sense(
        cls, alpha: float | tuple[float, ...] | None
    ) -> float | tuple[float, ...] | None:
        check_alpha(alpha)
        return alpha


class BoxLossConfig(Config):
    """Box regression loss over the foreground anchors."""

    kind: BoxLoss = "l1"
    """``l1`` and ``smooth_l1`` compare encoded deltas; ``giou``, ``diou``, ``ciou`` boxes."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the box loss in the total."""
    beta: Annotated[float, Field(gt=0.0)] = 1 / 9
    """Where smooth_l1 turns from quadratic to linear, in units of deltas."""


class ObjectiveConfig(Config):
    """What is trained for."""

    assigner: AssignerConfig = MaxIoUConfig()
    """Which anchor answers for which object."""
    classification: FocalConfig = FocalConfig()
    """The classification loss."""
    box: BoxLossConfig = BoxLossConfig()
    """The box regression loss."""
    normalizer: Normalizer = "foreground"
    """What the summed losses are divided by: ``foreground``, the number of foreground anchors of
    the whole optimizer step, over all ranks and accumulated parts, at least 1; ``per_image``, each
    image's own number, then the mean over images (torchvision); ``moving_average``, an exponential
    moving average of the step's number (detectron2: momentum 0.9, from 100)."""

    def build(self, box_coder: BoxCoder) -> Criterion:
        """The criterion of a detector that encodes boxes with ``box_coder``."""
        return Criterion(
            assigner=self.assigner.build(),
            box_coder=box_coder,
            alpha=self.classification.alpha,
            gamma=self.classification.gamma,
            box_loss_kind=self.box.kind,
            box_loss_weight=self.box.weight,
            box_loss_beta=self.box.beta,
            normalizer=self.normalizer,
        )


@dataclass(frozen=True, slots=True)
class LossSums:
    """The losses of a part of an optimizer step before they are divided by its normalizer.

    Attributes:
        classification: ``()``, to be differentiated.
        box_regression: ``()``, to be differentiated; its weight is in it.
        foreground_classification: ``()``, the share of ``classification`` that comes from
            foreground anchors; not differentiable.
        num_foreground: ``()`` float32, how many foreground anchors there are.
        divisor: ``()`` float32, what this part adds to the step's divisor: foreground anchors, or
            images where the normalizer is ``per_image``.
    """

    classification: Tensor
    box_regression: Tensor
    foreground_classification: Tensor
    num_foreground: Tensor
    divisor: Tensor

    @property
    def total(self) -> Tensor:
        """The sum that is differentiated."""
        return self.classification + self.box_regression

    def detach_stack(self) -> Tensor:
        """``(5,)`` float32: the fields in their order, cut from the graph, to be added up."""
        values = [
            self.classification,
            self.box_regression,
            self.foreground_classification,
            self.num_foreground,
            self.divisor,
        ]
        return torch.stack([value.detach().float() for value in values])

    @classmethod
    def unstack(cls, values: Tensor) -> Self:
        """The inverse of `detach_stack`."""
        return cls(*values.unbind())


class Criterion(nn.Module):
    """Focal loss over all anchors and a box loss over the foreground, without a host sync.

    The state holds the moving average of the normalizer, where one is configured.
    """

    def __init__(
        self,
        *,
        assigner: Assigner,
        box_coder: BoxCoder,
        alpha: float | tuple[float, ...] | None = 0.25,
        gamma: float = 2.0,
        box_loss_kind: BoxLoss = "l1",
        box_loss_weight: float = 1.0,
        box_loss_beta: float = 1 / 9,
        normalizer: Normalizer = "foreground",
    ) -> None:
        super().__init__()
        self.assigner = assigner
        self.box_coder = box_coder
        # One weight per class lives on the device: copying it there in each step would wait.
        self.alpha: Alpha = alpha
        if isinstance(alpha, tuple):
            self.register_buffer("class_alpha", torch.tensor(alpha), persistent=False)
        self.gamma = gamma
        self.box_loss_kind: BoxLoss = box_loss_kind
        self.box_loss_weight = box_loss_weight
        self.box_loss_beta = box_loss_beta
        self.normalizer: Normalizer = normalizer
        self.moving_average: Tensor
        self.register_buffer("moving_average", torch.tensor(100.0))

    def forward(
        self, predictions: DensePredictions, anchors: Anchors, targets: BatchedTargets
    ) -> DetectionLosses:
        """The losses of a batch that is a whole optimizer step by itself.

        The moving average, where one is used, is read but not moved.
        """
        sums = self.sums(predictions, anchors, targets)
        divisor = self.moving_average if self._averages else sums.divisor.clamp(min=1)
        return DetectionLosses(
            classification=sums.classification / divisor,
            box_regression=sums.box_regression / divisor,
        )

    @property
    def _averages(self) -> bool:
        return self.normalizer == "moving_average"

    def step_divisor(self, divisor_of_step: Tensor) -> Tensor:
        """What the gradients of a whole optimizer step are divided by; moves the moving average.

        Args:
            divisor_of_step: ``()``, the `LossSums.divisor` of all parts and ranks, added up.
        """
        divisor = divisor_of_step.clamp(min=1)
        if self._averages:
            self.moving_average.mul_(0.9).add_(divisor, alpha=0.1)
            return self.moving_average.clone()
        return divisor

    def sums(
        self, predictions: DensePredictions, anchors: Anchors, targets: BatchedTargets
    ) -> LossSums:
        """The summed losses of a batch, and what they are to be divided by."""
        assignment = self.assigner(anchors, targets)
        is_foreground = assignment.is_foreground  # (B, R)
        num_classes = predictions.class_logits[0].shape[-1]
        labels = targets.labels.gather(1, assignment.target_index)
        labels = torch.where(is_foreground, labels, num_classes)
        labels = torch.where(assignment.is_ignored, IGNORED, labels)
        matched = targets.boxes.float().gather(
            1, assignment.target_index.unsqueeze(-1).expand(-1, -1, 4)
        )  # (B, R, 4)

        per_image = is_foreground.sum(dim=1, dtype=torch.float32)  # (B,)
        weights = torch.ones_like(per_image)
        divisor = per_image.sum()
        if self.normalizer == "per_image":
            weights = 1 / per_image.clamp(min=1)
            divisor = torch.full_like(divisor, float(per_image.shape[0]))

        alpha = getattr(self, "class_alpha", self.alpha)
        classification = foreground_share = box_regression = per_image.new_zeros(())
        start = 0
        for level, count in enumerate(anchors.num_per_level):
            at = slice(start, start + count)
            foreground = is_foreground[:, at]  # (B, HWA)
            per_anchor = sigmoid_focal_loss(
                predictions.class_logits[level].flatten(1, 3),  # (B, HWA, K), a view
                labels[:, at],
                alpha=alpha,
                gamma=self.gamma,
                ignore_index=IGNORED,
            ).sum(dim=-1) * weights.unsqueeze(1)
            classification = classification + per_anchor.sum()
            foreground_share = foreground_share + (per_anchor.detach() * foreground).sum()
            deltas = predictions.box_deltas[level].flatten(1, 3).float()  # (B, HWA, 4)
            per_box = self._box_losses(deltas, matched[:, at], anchors.boxes[at], foreground)
            box_regression = box_regression + (per_box * weights.unsqueeze(1)).sum()
            start += count
        return LossSums(
            classification=classification,
            box_regression=box_regression * self.box_loss_weight,
            foreground_classification=foreground_share,
            num_foreground=per_image.sum(),
            divisor=divisor,
        )

    def _box_losses(
        self, deltas: Tensor, matched: Tensor, anchors: Tensor, is_foreground: Tensor
    ) -> Tensor:
        """``(B, HWA)``, zero outside the foreground.

        The background gets a harmless stand-in (its own anchor at zero deltas) instead of being
        filtered out: a filter would have to wait for the device to count.
        """
        mask = is_foreground.unsqueeze(-1)
        deltas = torch.where(mask, deltas, 0.0)
        matched = torch.where(mask, matched, anchors)
        if self.box_loss_kind in COMPARES_BOXES:
            predicted, wanted = self.box_coder.decode(deltas, anchors), matched
        else:
            predicted, wanted = deltas, self.box_coder.encode(matched, anchors)
        losses = box_loss(predicted, wanted, self.box_loss_kind, beta=self.box_loss_beta)
        return torch.where(is_foreground, losses, 0.0)
