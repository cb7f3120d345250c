"""The losses of dense predictions over all anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from retina.configuration import Config
from retina.distributed import sum_over_ranks
from retina.geometry.box_coders import BoxCoder
from retina.geometry.boxes import pairwise_iou
from retina.losses.box import COMPARES_BOXES, DEFAULT_BETA, BoxLoss, box_loss
from retina.losses.distribution import distribution_focal_loss
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

_SMALLEST_WEIGHT = 1e-12
"""Keeps the mean weight of no foreground at all from being 0 / 0."""


class BoxLossConfig(Config):
    """Box regression loss over the foreground anchors."""

    kind: BoxLoss = "l1"
    """``l1`` and ``smooth_l1`` compare what `model.box_coder` makes of a box, deltas or expected
    distances; ``giou``, ``diou``, ``ciou`` compare boxes."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of this loss in the total."""
    beta: Annotated[float, Field(gt=0.0)] = DEFAULT_BETA
    """Where smooth_l1 turns from quadratic to linear, in units of the coordinates."""
    distribution_weight: Annotated[float, Field(ge=0.0)] = 0.25
    """Factor of the distribution focal loss in the total, the mean over the four sides of a box;
    only with a box coder that predicts distributions."""
    weighted_by_score: bool = False
    """Weight each foreground anchor in both by its highest score, which is not differentiated, and
    divide by the sum of the weights in the place of their number (generalized focal loss)."""


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
    """What the boxes of foreground anchors are taught with."""
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
            distribution_loss_weight=self.box.distribution_weight,
            box_loss_by_score=self.box.weighted_by_score,
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
        box_weight: ``()`` float32, the sum of the foreground anchors' weights in the box losses;
            None where each weighs 1, and after `with_mean_box_weight_of_one`.
    """

    classification: Tensor
    box_regression: Tensor
    foreground_classification: Tensor
    num_foreground: Tensor
    divisor: Tensor
    box_weight: Tensor | None = None

    def with_mean_box_weight_of_one(self) -> Self:
        """The box losses as if the weights of the foreground, over all ranks, were 1 in the mean.

        Divided by the number of foreground anchors they are then the weighted mean. That is the
        mean over the whole step where it has one micro-batch; of several, each is scaled by its
        own mean weight, since its backward pass comes before the next one is seen.

        With weights this is a collective: every rank calls it equally often. Where there is no
        foreground on any rank, the losses stay zero.
        """
        if self.box_weight is None:
            return self
        own = torch.stack([self.num_foreground, self.box_weight])
        count, weight = sum_over_ranks(own).unbind()
        factor = count / weight.clamp(min=_SMALLEST_WEIGHT)
        return replace(self, box_regression=self.box_regression * factor, box_weight=None)

    @property
    def total(self) -> Tensor:
        """The sum that is differentiated."""
        return self.classification + self.box_regression

    def detach_stack(self) -> Tensor:
        """``(5,)`` float32: the fields up to ``divisor``, cut from the graph, to be added up."""
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
        distribution_loss_weight: float,
        box_loss_by_score: bool,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.assigner = assigner
        self.box_coder = box_coder
        self.classification_loss = classification_loss
        self.box_loss_kind: BoxLoss = box_loss_kind
        self.box_loss_weight = box_loss_weight
        self.box_loss_beta = box_loss_beta
        self.distribution_loss_weight = distribution_loss_weight
        self.box_loss_by_score = box_loss_by_score
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

        classification = foreground_share = box_regression = box_weight = per_image.new_zeros(())
        start = 0
        for level, count in enumerate(anchors.num_per_level):
            at = slice(start, start + count)
            start += count
            logits = predictions.class_logits[level].flatten(1, 3)  # (B, HWA, K), a view
            codes = predictions.box_codes[level].flatten(1, 3).float()  # (B, HWA, C)
            boxes = codes, matched[:, at], anchors.boxes[at], is_foreground[:, at]
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
            if self.box_loss_by_score:
                scores = logits.detach().amax(dim=-1).float().sigmoid()  # (B, HWA)
                scores = torch.where(is_foreground[:, at], scores, 0.0)
                per_box = per_box * scores
                box_weight = box_weight + scores.sum()
            box_regression = box_regression + per_box.sum()
        return LossSums(
            classification=classification,
            box_regression=box_regression,
            foreground_classification=foreground_share,
            num_foreground=per_image.sum(),
            divisor=divisor,
            box_weight=box_weight if self.box_loss_by_score else None,
        )

    @torch.no_grad()
    def _quality(
        self, codes: Tensor, matched: Tensor, anchors: Tensor, is_foreground: Tensor
    ) -> Tensor:
        """``(B, HWA)``: how much each predicted box overlaps its object, 0 on the background."""
        predicted = self.box_coder.decode(codes, anchors)
        overlap = pairwise_iou(predicted.unsqueeze(2), matched.unsqueeze(2))[..., 0, 0]
        return torch.where(is_foreground, overlap, 0.0)

    def _box_losses(
        self, codes: Tensor, matched: Tensor, anchors: Tensor, is_foreground: Tensor
    ) -> Tensor:
        """``(B, HWA)``, with the losses' weights, zero outside the foreground.

        The background gets a harmless stand-in (its own anchor at a code of zeros) instead of being
        filtered out: a filter would have to wait for the device to count.
        """
        mask = is_foreground.unsqueeze(-1)
        codes = torch.where(mask, codes, 0.0)
        matched = torch.where(mask, matched, anchors)
        if self.box_loss_kind in COMPARES_BOXES:
            predicted, wanted = self.box_coder.decode(codes, anchors), matched
        else:
            predicted = self.box_coder.coordinates(codes)
            wanted = self.box_coder.encode(matched, anchors)
        losses = box_loss(predicted, wanted, self.box_loss_kind, beta=self.box_loss_beta)
        losses = losses * self.box_loss_weight
        distributions = self.box_coder.distributions(codes)  # (B, HWA, 4, n + 1)
        if distributions is not None and self.distribution_loss_weight:
            wanted = self.box_coder.encode(matched, anchors)
            sides = distribution_focal_loss(distributions, wanted)  # (B, HWA, 4)
            losses = losses + sides.mean(dim=-1) * self.distribution_loss_weight
        return torch.where(is_foreground, losses, 0.0)
