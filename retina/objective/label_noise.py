"""Labels that the detector contradicts: found during training, so that it learns less from them.

A high γ looks hardest at what is hardest, and a wrong label stays hard for ever. Once a detector
has learned what most labels say, the few that it contradicts with confidence are more often wrong
than right (small-loss selection: Jiang et al. 2018, Han et al. 2018, here with the evidence that a
dense detector has for each kind of error).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from retina.configuration import Config
from retina.geometry.box_coder import BoxCoder
from retina.geometry.boxes import pairwise_iou
from retina.structures import Anchors, Assignment, BatchedTargets, DensePredictions

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

_LOWEST = -1e9
"""A logit below all others that still survives arithmetic."""


class LabelNoiseConfig(Config):
    """Learn less from labels that the detector contradicts."""

    warm_up_fraction: Probability = 0.5
    """The part of the training in which every label is believed, between 0 and 1."""
    weight: Fraction = 0.0
    """The weight of a suspect anchor in both losses; 0 leaves it out."""
    max_gamma: Annotated[float, Field(ge=0.0)] = 1.0
    """γ of suspect anchors, where they keep some weight, is at most this (β of quality focal
    loss); equalized focal loss keeps its own."""
    confident: Probability = 0.4
    """What the detector must give a class to contradict a labelled object: one that it takes for
    another class, or sees well but elsewhere (a badly placed box)."""
    confident_background: Probability = 0.7
    """What it must give a class to contradict the background (a missing label). Higher: for every
    object that is not labelled there are many places that merely look like one."""
    unseen: Probability = 0.02
    """An object whose anchors give no class this much is suspected to be none (a spurious box), if
    half of its class in the batch is seen: what is not learned yet is not suspect."""
    elsewhere_iou: Fraction = 0.4
    """A predicted box that overlaps its label less than this is elsewhere."""
    background_iou: Fraction = 0.3
    """A confident prediction on the background is suspected only where it overlaps every labelled
    box less than this: nearer ones are badly placed predictions, which must go on being taught."""
    candidates: Annotated[int, Field(ge=1)] = 256
    """How many of an image's most confident background anchors are looked at."""

    @model_validator(mode="after")
    def _max_gamma_has_an_effect(self) -> Self:
        if (
            self.weight == 0
            and self.max_gamma != LabelNoiseConfig.model_fields["max_gamma"].default
        ):
            raise ValueError(
                "max_gamma has no effect while weight is 0: suspects are then left out; give them "
                "a weight, or leave max_gamma away"
            )
        return self

    def build(self, box_coder: BoxCoder) -> SuspectFinder:
        """What finds the suspects."""
        return SuspectFinder(self, box_coder)


@dataclass(frozen=True, slots=True)
class Suspects:
    """Which anchors learn from a label that is probably wrong.

    Attributes:
        anchors: ``(B, R)`` bool.
        num_objects: ``()`` int64, labelled objects under suspicion.
        num_background: ``()`` int64, background anchors under suspicion.
    """

    anchors: Tensor
    num_objects: Tensor
    num_background: Tensor


class SuspectFinder:
    """Applies the rules of `LabelNoiseConfig` to a batch, without a host synchronisation."""

    def __init__(self, config: LabelNoiseConfig, box_coder: BoxCoder) -> None:
        self.config = config
        self._box_coder = box_coder
        self._confident = _logit(config.confident)
        self._confident_background = _logit(config.confident_background)
        self._unseen = _logit(config.unseen)

    def is_due(self, progress: float | None) -> bool:
        """Whether the warm-up is over; None is not a training."""
        return progress is not None and progress >= self.config.warm_up_fraction

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        targets: BatchedTargets,
        assignment: Assignment,
    ) -> Suspects:
        """The suspect anchors of a batch."""
        labels = targets.labels.gather(1, assignment.target_index)  # (B, R)
        own, other, deltas = _evidence(predictions, labels, assignment.is_foreground)
        objects = self._suspect_objects(own, other, deltas, anchors, targets, assignment)  # (B, M)
        on_objects = objects.gather(1, assignment.target_index) & assignment.is_foreground
        background = ~assignment.is_foreground & ~assignment.is_ignored
        on_background = self._suspect_background(other, deltas, anchors, targets, background)
        return Suspects(on_objects | on_background, objects.sum(), on_background.sum())

    def _suspect_objects(
        self,
        own: Tensor,
        other: Tensor,
        deltas: Tensor,
        anchors: Anchors,
        targets: BatchedTargets,
        assignment: Assignment,
    ) -> Tensor:
        """``(B, M)`` bool: taken for another class, seen elsewhere, or not seen at all."""
        index, foreground = assignment.target_index, assignment.is_foreground

        def best(values: Tensor) -> Tensor:  # of each object's anchors: (B, R) to (B, M)
            empty = values.new_full(targets.labels.shape, _LOWEST)
            return empty.scatter_reduce(1, index, values.masked_fill(~foreground, _LOWEST), "amax")

        best_own, best_other = best(own), best(other)
        matched = targets.boxes.float().gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        predicted = self._box_coder.decode(deltas, anchors.boxes)  # (B, R, 4)
        overlap = pairwise_iou(predicted.unsqueeze(2), matched.unsqueeze(2))[..., 0, 0]  # (B, R)
        is_surest = own >= best_own.gather(1, index)
        overlap_of_surest = best(torch.where(is_surest, overlap, _LOWEST))

        other_class = (best_other > self._confident) & (best_other > best_own)
        elsewhere = (best_own > self._confident) & (overlap_of_surest < self.config.elsewhere_iou)
        is_judged = (best_own > _LOWEST) & targets.is_object  # it has anchors
        unseen = torch.maximum(best_own, best_other) < self._unseen
        unseen &= _holds_for_half_of_class(~unseen & is_judged, targets.labels, is_judged)
        return (other_class | elsewhere | unseen) & is_judged

    def _suspect_background(
        self,
        best: Tensor,
        deltas: Tensor,
        anchors: Anchors,
        targets: BatchedTargets,
        background: Tensor,
    ) -> Tensor:
        """``(B, R)`` bool: confident predictions of an object where none is labelled."""
        count = min(self.config.candidates, best.shape[1])
        scores, rows = best.masked_fill(~background, _LOWEST).topk(count, dim=1)  # (B, C)
        chosen = deltas.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
        boxes = self._box_coder.decode(chosen, anchors.boxes[rows])  # (B, C, 4)
        overlap = pairwise_iou(boxes, targets.boxes.float())  # (B, C, M); padding has no area
        is_alone = overlap.amax(dim=2) < self.config.background_iou
        suspect = (scores > self._confident_background) & is_alone
        return torch.zeros_like(background).scatter(1, rows, suspect)


def _holds_for_half_of_class(holds: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """``(B, M)`` bool: whether it holds for half of the counted objects of the object's class."""
    same_class = labels.flatten().unsqueeze(0) == labels.flatten().unsqueeze(1)  # (BM, BM)
    counted_of_class = (same_class & counted.flatten()).sum(dim=1)
    held_of_class = (same_class & holds.flatten()).sum(dim=1)
    return (2 * held_of_class >= counted_of_class).view_as(labels)


def _evidence(
    predictions: DensePredictions, labels: Tensor, is_foreground: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The logit of the label, the best logit of the other classes, and the deltas of each anchor.

    ``(B, R)``, ``(B, R)`` and ``(B, R, 4)``, float32; on the background every class is another.
    """
    own: list[Tensor] = []
    other: list[Tensor] = []
    deltas: list[Tensor] = []
    start = 0
    for logits, level_deltas in zip(predictions.class_logits, predictions.box_deltas, strict=True):
        rows = logits.flatten(1, 3)  # (B, HWA, K)
        at = slice(start, start + rows.shape[1])
        label = labels[:, at].unsqueeze(-1)  # (B, HWA, 1)
        own_logit = rows.gather(-1, label)
        lowest = torch.finfo(rows.dtype).min
        hidden = torch.where(is_foreground[:, at].unsqueeze(-1), lowest, own_logit)
        own.append(own_logit[..., 0].float())
        other.append(rows.scatter(-1, label, hidden).amax(dim=-1).float())
        deltas.append(level_deltas.flatten(1, 3).float())
        start = at.stop
    return torch.cat(own, dim=1), torch.cat(other, dim=1), torch.cat(deltas, dim=1)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
