"""From a batch to its losses: the one forward pass with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from retina.devices import Precision, autocast
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion, LossSums
from retina.structures import Assignment, Batch, BatchedTargets, DensePredictions

ForwardHook = Callable[[DensePredictions, Assignment, BatchedTargets], None]
"""Is shown what the network says about a batch, and which anchor answers for which object."""


def joined(hooks: Sequence[ForwardHook | None]) -> ForwardHook | None:
    """All forward hooks as one; None where there are none."""
    wanted = [hook for hook in hooks if hook is not None]

    def call(
        predictions: DensePredictions, assignment: Assignment, targets: BatchedTargets
    ) -> None:
        for hook in wanted:
            hook(predictions, assignment, targets)

    return call if wanted else None


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Everything between a batch and its losses, on one device.

    Attributes:
        detector: what is trained.
        preprocess: how uint8 images become the network's input.
        criterion: what is trained for.
        device: where all of them are.
        precision: of the network's arithmetic; the losses are float32.
    """

    detector: RetinaNet
    preprocess: Preprocess
    criterion: Criterion
    device: torch.device
    precision: Precision

    def losses(
        self,
        batch: Batch,
        *,
        network: nn.Module | None = None,
        forward_hook: ForwardHook | None = None,
    ) -> LossSums:
        """The summed losses of a batch, not divided yet, to be differentiated.

        With box losses that are weighted by scores every rank must call this equally often; see
        `LossSums.with_mean_box_weight_of_one`.

        Args:
            batch: on any device.
            network: the detector as it is wrapped for several processes; None for itself.
            forward_hook: is shown the predictions.
        """
        batch = batch.to(self.device)
        images = self.preprocess(batch.images, batch.valid_sizes)
        images = images.contiguous(memory_format=self.detector.memory_format)
        with autocast(self.precision, self.device):
            predictions: DensePredictions = (network or self.detector)(images)
        anchors = self.detector.anchors(predictions.feature_shapes, batch.padded_size, self.device)
        assignment = self.criterion.assigner(anchors, batch.targets)
        if forward_hook is not None:
            forward_hook(predictions, assignment, batch.targets)
        sums = self.criterion.sums(predictions, anchors, batch.targets, assignment)
        return sums.with_mean_box_weight_of_one()
