"""The losses of dense predictions over all anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from retina.configuration import Config
from retina.geometry.box_coder import BoxCoder
from retina.geometry.boxes import pairwise_iou
from retina.losses.box import COMPARES_BOXES, DEFAULT_BETA, BoxLoss, box_loss
from retina.losses.focal import FocalSums
from retina.objective.assignment import AnyAssignerConfig, Assigner, MaxIoUConfig
from retina.objective.classification import (
    AnyClassificationConfig,
    ClassificationLoss,
    FocalConfig,
    anchor_labels,
)
from retina.structures import Anchors, Assignment, BatchedTargets, DensePredictions

Normalizer = Literal["foreground", "per_image", "moving_average"]


class BoxLossConfig(Config):
    """Box regression loss over the foreground anchors."""

    kind: BoxLoss = "l1"
    """``l1`` and ``smooth_l1`` compare encoded deltas; ``giou``, ``diou``, ``ciou`` boxes."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the box loss in the total."""
    beta: Annotated[float, Field(gt=0.0)] = DEFAULT_BETA
    """Where smooth_l1 turns from quadratic to linear, in units of deltas."""


class ObjectiveConfig(Config):
    """Which anchors answer for which objects, and what they are taught with."""

    removed: ClassVar[Mapping[str, str]] = {
        "label_noise": "noise-aware training gained next to nothing (docs/noisy-labels.md)"
    }

    assigner: AnyAssignerConfig = MaxIoUConfig()
    """Which anchor answers for which object."""
    classification: AnyClassificationConfig = FocalConfig()
    """What the class logits of every anchor that is not ignored are taught with."""
    box: BoxLossConfig = BoxLossConfig()
    """What the box deltas of foreground anchors are taught with."""
    normalizer: Normalizer = "foreground"
    """What the summed losses are divided by: ``foreground``, the number of foreground anchors of
    the whole optimizer step, over all ranks and micro-batches, at least 1; ``per_image``, each
    image's own number, then the mean over images (torchvision); ``moving_average``, an exponential
    moving average of the step's number (detectron2: momentum 0.9, from 100)."""

    def build(self, box_coder: BoxCoder, *, class_counts: Sequence[int] | None = None) -> Criterion:
        """The criterion of a detector.

        Args:
            box_coder: how the detector encodes boxes.
            class_counts: the objects of each class in the training set, for the losses that
                balance classes.

        Raises:
            ValueError: the classification loss needs counts and there are none.
        """
        return Criterion(
            assigner=self.assigner.build(),
            box_coder=box_coder,
            classification_loss=self.classification.build(class_counts),
            box_loss_kind=self.box.kind,
            box_loss_weight=self.box.weight,
            box_loss_beta=self.box.beta,
            normalizer=self.normalizer,
        )


@dataclass(frozen=True, slots=True)
class LossSums:
    """The losses of a micro-batch of an optimizer step before they are divided by its normalizer.

    Attributes:
        classification: ``()``, to be differentiated.
        box_regression: ``()``, to be differentiated; its weight is in it.
        foreground_classification: ``()``, the share of ``classification`` that comes from
            foreground anchors; not differentiable.
        num_foreground: ``()`` float32, how many foreground anchors there are.
        divisor: ``()`` float32, what this micro-batch adds to the step's divisor: foreground
            anchors, or images where the normalizer is ``per_image``.
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
    """A classification loss over all anchors and a box loss over the foreground.

    Nothing in it waits for the device. The state holds the moving average of the normalizer, where
    one is configured, and what the classification loss has learned about its classes.
    """

    def __init__(
        self,
        *,
        assigner: Assigner,
        box_coder: BoxCoder,
        classification_loss: ClassificationLoss,
        box_loss_kind: BoxLoss,
        box_loss_weight: float,
        box_loss_beta: float,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.assigner = assigner
        self.box_coder = box_coder
        self.classification_loss = classification_loss
        self.box_loss_kind: BoxLoss = box_loss_kind
        self.box_loss_weight = box_loss_weight
        self.box_loss_beta = box_loss_beta
        self.normalizer: Normalizer = normalizer
        self.moving_average: Tensor
        self.register_buffer("moving_average", torch.tensor(100.0))

    def step_divisor(self, divisor_of_step: Tensor) -> Tensor:
        """What the gradients of a whole optimizer step are divided by.

        To be called once for each step on every rank, after the backward passes: it moves the
        moving average, and the classification loss takes in what it has seen.

        Args:
            divisor_of_step: ``()``, the sum of `LossSums.divisor` over micro-batches and ranks.
        """
        self.classification_loss.end_step()
        divisor = divisor_of_step.clamp(min=1)
        if self.normalizer == "moving_average":
            self.moving_average.mul_(0.9).add_(divisor, alpha=0.1)
            return self.moving_average.clone()
        return divisor

    def sums(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        targets: BatchedTargets,
        assignment: Assignment | None = None,
    ) -> LossSums:
        """The summed losses of a batch, and what they are to be divided by.

        Args:
            predictions: of the detector.
            anchors: of the predictions.
            targets: the labelled objects.
            assignment: what the assigner says of them; None asks it.
        """
        if assignment is None:
            assignment = self.assigner(anchors, targets)
        is_foreground = assignment.is_foreground  # (B, R)
        labels = anchor_labels(assignment, targets, predictions.class_logits[0].shape[-1])
        matched = targets.boxes.float().gather(
            1, assignment.target_index.unsqueeze(-1).expand(-1, -1, 4)
        )  # (B, R, 4)

        per_image = is_foreground.sum(dim=1, dtype=torch.float32)  # (B,)
        divisor = per_image.sum()
        weights: Tensor | None = None  # (B, R), of every anchor in both losses
        if self.normalizer == "per_image":
            weights = (1 / per_image.clamp(min=1)).unsqueeze(1).expand_as(is_foreground)
            divisor = torch.full_like(divisor, float(per_image.shape[0]))

        classification = foreground_share = box_regression = per_image.new_zeros(())
        start = 0
        for level, count in enumerate(anchors.num_per_level):
            at = slice(start, start + count)
            start += count
            logits = predictions.class_logits[level].flatten(1, 3)  # (B, HWA, K), a view
            deltas = predictions.box_deltas[level].flatten(1, 3).float()  # (B, HWA, 4)
            boxes = deltas, matched[:, at], anchors.boxes[at], is_foreground[:, at]
            row_weights = None if weights is None else weights[:, at]
            part: FocalSums = self.classification_loss(
                logits,
                labels[:, at],
                row_weights=row_weights,
                quality=self._quality(*boxes) if self.classification_loss.needs_quality else None,
            )
            classification = classification + part.total
            foreground_share = foreground_share + part.foreground
            per_box = self._box_losses(*boxes)
            if row_weights is not None:
                per_box = per_box * row_weights
            box_regression = box_regression + per_box.sum()
        return LossSums(
            classification=classification,
            box_regression=box_regression * self.box_loss_weight,
            foreground_classification=foreground_share,
            num_foreground=per_image.sum(),
            divisor=divisor,
        )

    @torch.no_grad()
    def _quality(
        self, deltas: Tensor, matched: Tensor, anchors: Tensor, is_foreground: Tensor
    ) -> Tensor:
        """``(B, HWA)``: how much each predicted box overlaps its object, 0 on the background."""
        predicted = self.box_coder.decode(deltas, anchors)
        overlap = pairwise_iou(predicted.unsqueeze(2), matched.unsqueeze(2))[..., 0, 0]
        return torch.where(is_foreground, overlap, 0.0)

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
