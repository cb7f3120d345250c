"""One optimizer step: forward, losses, backward, update.

Nothing in it waits for the device, but fp16's gradient scaler, which must look for infinities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retina.devices import Precision, autocast
from retina.distributed import is_distributed, sum_over_ranks, world_size
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion, LossSums
from retina.structures import Anchors, Batch, BatchedTargets, DensePredictions

Observer = Callable[[DensePredictions, Anchors, BatchedTargets], None]
"""Looks at what the network says about a batch, before the weights change."""

_FP16_DIVISOR = 64.0
"""What each part's loss is divided by in fp16 before the step's divisor is known, in the order of a
foreground count: it keeps the gradients in range. In other precisions it would only cost the
backward pass of the loss another pass over its gradient."""


class TrainingStep:
    """Computes and applies the gradient of one global batch.

    The gradient is that of the summed losses divided by the normalizer of the whole step, over all
    ranks and accumulated parts. The divisor is known only when all parts are done, so the gradients
    are corrected before the update.
    """

    def __init__(
        self,
        *,
        detector: RetinaNet,
        preprocess: Preprocess,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: Precision,
        clip_norm: float | None,
    ) -> None:
        self._detector = detector
        self._preprocess = preprocess
        self._criterion = criterion
        self._optimizer = optimizer
        self._device = device
        self._precision: Precision = precision
        self._clip_norm = clip_norm
        self.scaler = torch.GradScaler(device.type, enabled=precision == "fp16")
        self._divisor = _FP16_DIVISOR if precision == "fp16" else 1.0
        self._model: nn.Module = detector
        if is_distributed():
            ids = [device.index] if device.type == "cuda" else None
            self._model = DistributedDataParallel(detector, device_ids=ids)

    def __call__(
        self, parts: Sequence[Batch], *, progress: float = 0.0, observer: Observer | None = None
    ) -> LossSums:
        """Apply one optimizer step.

        Args:
            parts: this rank's share of the global batch, one batch for each accumulated part.
            progress: the part of the training that is done, in 0..1.
            observer: is shown the predictions of each part.

        Returns:
            The losses over all ranks and parts, divided by the step's normalizer; the counts are
            as they are. All on the device: reading one waits for the step.
        """
        self._detector.train()
        self._optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(5, device=self._device)
        for number, batch in enumerate(parts):
            with self._gradient_sync(is_last=number == len(parts) - 1):
                sums = self._losses(batch.to(self._device), progress, observer)
                self.scaler.scale(sums.total / self._divisor).backward()  # type: ignore[no-untyped-call]
            totals += sums.detach_stack()
        totals = sum_over_ranks(totals)
        # Data-parallel training averages the gradients over the ranks: undo that, too.
        divisor = self._criterion.step_divisor(totals[4])
        self._update(self._divisor * world_size() / divisor)
        losses = totals / divisor
        losses[3:] = totals[3:]
        return LossSums.unstack(losses)

    def _losses(self, batch: Batch, progress: float, observer: Observer | None) -> LossSums:
        images = self._preprocess(batch.images, batch.valid_sizes)
        images = images.contiguous(memory_format=self._detector.memory_format)
        with autocast(self._precision, self._device):
            predictions: DensePredictions = self._model(images)
        anchors = self._detector.anchors(
            predictions.feature_shapes, batch.padded_size, self._device
        )
        if observer is not None:
            observer(predictions, anchors, batch.targets)
        return self._criterion.sums(predictions, anchors, batch.targets, progress=progress)

    def _update(self, factor: Tensor) -> None:
        self.scaler.unscale_(self._optimizer)
        parameters = [
            parameter
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        gradients = [parameter.grad for parameter in parameters]
        if self._clip_norm is not None:
            norm = factor * nn.utils.get_total_norm(gradients, foreach=True)
            factor = factor * (self._clip_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        self.scaler.step(self._optimizer)
        self.scaler.update()

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        if isinstance(self._model, DistributedDataParallel) and not is_last:
            return self._model.no_sync()
        return nullcontext()
