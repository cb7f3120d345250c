"""One optimizer step: forward, losses, backward, update. Nothing in it waits for the device."""

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
from retina.training.finite_guard import (
    GuardedOptimizer,
    PendingVerdict,
    RunningState,
    running_statistics,
)

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

    A step whose loss or gradient is not finite, on any rank, changes nothing: no weight, no state
    of the optimizer, no running statistics of norms, no moving average of the criterion.

    Raises:
        ValueError: the optimizer cannot mask an update; see `GuardedOptimizer`.
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
        self._guarded = GuardedOptimizer(optimizer)
        self.running = RunningState([*running_statistics(detector), *criterion.buffers()])
        """What a step moves on its way, and as it was before the last step that began."""
        self._device = device
        self._precision: Precision = precision
        self._clip_norm = clip_norm
        self.scaler = torch.GradScaler(device.type, enabled=precision == "fp16")
        self._divisor = _FP16_DIVISOR if precision == "fp16" else 1.0
        self.masked = torch.zeros((), device=device)
        """``()`` float32, on the device: 1 where the last step changed nothing."""
        self.verdict: PendingVerdict | None = None
        """The same for the host; None before the first step."""
        self._model: nn.Module = detector
        if is_distributed():
            ids = [device.index] if device.type == "cuda" else None
            # What frozen norms hold never changes, so that nobody needs to be told.
            has_statistics = bool(running_statistics(detector))
            self._model = DistributedDataParallel(
                detector, device_ids=ids, broadcast_buffers=has_statistics
            )

    def __call__(
        self,
        parts: Sequence[Batch],
        *,
        progress: float = 0.0,
        observer: Observer | None = None,
        before_update: Callable[[], None] | None = None,
    ) -> LossSums:
        """Apply one optimizer step.

        Args:
            parts: this rank's share of the global batch, one batch for each accumulated part.
            progress: the part of the training that is done, in 0..1.
            observer: is shown the predictions of each part.
            before_update: called when the step is under way and has changed nothing: the time to
                read the verdict on the step before. Where it raises, this step leaves no trace.

        Returns:
            The losses over all ranks and parts, divided by the step's normalizer; the counts are
            as they are. All on the device: reading one waits for the step.
        """
        self.running.remember()
        try:
            own = self._gradients(parts, progress, observer)
            if before_update is not None:
                before_update()
        except BaseException:
            self.running.restore_where(torch.ones_like(self.masked))
            raise
        totals = sum_over_ranks(own)
        # Data-parallel training averages the gradients over the ranks: undo that, too.
        divisor = self._criterion.step_divisor(totals[4])
        losses = totals / divisor
        losses[3:] = totals[3:]
        reported = LossSums.unstack(losses)
        self.masked = self._update(
            self._divisor * world_size() / divisor, reported.total.isfinite()
        )
        self.running.restore_where(self.masked)
        self.verdict = PendingVerdict(self.masked, reported, own.isfinite().all())
        return reported

    def _gradients(
        self, parts: Sequence[Batch], progress: float, observer: Observer | None
    ) -> Tensor:
        """Add up the gradients of the parts; returns this rank's `LossSums` as ``(5,)``."""
        self._detector.train()
        self._optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(5, device=self._device)
        for number, batch in enumerate(parts):
            with self._gradient_sync(is_last=number == len(parts) - 1):
                sums = self._losses(batch.to(self._device), progress, observer)
                self.scaler.scale(sums.total / self._divisor).backward()  # type: ignore[no-untyped-call]
            totals += sums.detach_stack()
        return totals

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

    def _update(self, factor: Tensor, is_loss_finite: Tensor) -> Tensor:
        """Change the weights, unless something is not finite; see `GuardedOptimizer.step`."""
        self.scaler.unscale_(self._optimizer)
        masked = self._guarded.step(factor, is_loss_finite, clip_norm=self._clip_norm)
        self.scaler.update()
        return masked

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        if isinstance(self._model, DistributedDataParallel) and not is_last:
            return self._model.no_sync()
        return nullcontext()
