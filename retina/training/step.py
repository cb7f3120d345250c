"""One optimizer step: forward, losses, backward, update. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retina.distributed import is_distributed, sum_over_ranks, world_size
from retina.objective.criterion import LossSums
from retina.structures import Batch
from retina.training.finite_guard import (
    GuardedOptimizer,
    PendingVerdict,
    RunningState,
    running_statistics,
)
from retina.training.forward import ForwardHook, ForwardPass

_FP16_DIVISOR = 64.0
"""What each micro-batch's loss is divided by in fp16 before the step's divisor is known, in the
order of a foreground count: it keeps the gradients in range. In other precisions it would only cost
the backward pass of the loss another pass over its gradient."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did; all of it is on the device, and reading it waits for the step.

    Attributes:
        losses: over all ranks and micro-batches, divided by the step's normalizer; the counts are
            as they are.
        masked: ``()`` float32, 1 where the step changed nothing since it was not finite.
        verdict: the same for the host, on its way.
    """

    losses: LossSums
    masked: Tensor
    verdict: PendingVerdict


class TrainingStep:
    """Computes and applies the gradient of one global batch.

    The gradient is that of the summed losses divided by the normalizer of the whole step, over all
    ranks and accumulated micro-batches. The divisor is known only when all of them are done, so the
    gradients are corrected before the update.

    A step whose loss or gradient is not finite, on any rank, changes nothing: no weight, no state
    of the optimizer, no running statistics of norms, no moving average of the criterion.

    Args:
        forward: from a batch to its losses.
        optimizer: of the detector's trainable parameters.
        clip_norm: gradients longer than this (L2 norm over all weights) are scaled down to it.

    Raises:
        ValueError: the optimizer cannot mask an update; see `GuardedOptimizer`.
    """

    def __init__(
        self, forward: ForwardPass, optimizer: torch.optim.Optimizer, *, clip_norm: float | None
    ) -> None:
        self.forward = forward
        self.optimizer = optimizer
        detector, device, is_fp16 = forward.detector, forward.device, forward.precision == "fp16"
        self._guarded = GuardedOptimizer(optimizer)
        self.running = RunningState([*running_statistics(detector), *forward.criterion.buffers()])
        """What a step moves on its way, and as it was before the last step that began."""
        self._clip_norm = clip_norm
        self.scaler = torch.GradScaler(device.type, enabled=is_fp16)
        self._divisor = _FP16_DIVISOR if is_fp16 else 1.0
        self._network: nn.Module = detector
        if is_distributed():
            ids = [device.index] if device.type == "cuda" else None
            # What frozen norms hold never changes, so that nobody needs to be told.
            has_statistics = bool(running_statistics(detector))
            self._network = DistributedDataParallel(
                detector, device_ids=ids, broadcast_buffers=has_statistics
            )

    def __call__(
        self,
        micro_batches: Sequence[Batch],
        *,
        forward_hook: ForwardHook | None = None,
        before_update: Callable[[], None] | None = None,
    ) -> StepResult:
        """Apply one optimizer step.

        Args:
            micro_batches: this rank's share of the global batch.
            forward_hook: is shown the predictions of each of them.
            before_update: called when the step is under way and has changed nothing: the time to
                read the verdict on the step before. Where it raises, this step leaves no trace.
        """
        self.running.remember()
        try:
            own = self._gradients(micro_batches, forward_hook)
            if before_update is not None:
                before_update()
        except BaseException:
            self.running.restore_where(torch.ones((), device=self.forward.device))
            raise
        totals = sum_over_ranks(own)
        # Data-parallel training averages the gradients over the ranks: undo that, too.
        divisor = self.forward.criterion.step_divisor(totals[4])
        values = totals / divisor
        values[3:] = totals[3:]
        losses = LossSums.unstack(values)
        masked = self._update(self._divisor * world_size() / divisor, losses.total.isfinite())
        self.running.restore_where(masked)
        return StepResult(losses, masked, PendingVerdict(masked, losses, own.isfinite().all()))

    def _gradients(
        self, micro_batches: Sequence[Batch], forward_hook: ForwardHook | None
    ) -> Tensor:
        """Add up the gradients; returns this rank's `LossSums` as ``(5,)``."""
        self.forward.detector.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(5, device=self.forward.device)
        for number, batch in enumerate(micro_batches, start=1):
            with self._gradient_sync(is_last=number == len(micro_batches)):
                sums = self.forward.losses(batch, network=self._network, forward_hook=forward_hook)
                self.scaler.scale(sums.total / self._divisor).backward()  # type: ignore[no-untyped-call]
            totals += sums.detach_stack()
        return totals

    def _update(self, factor: Tensor, is_loss_finite: Tensor) -> Tensor:
        """Change the weights, unless something is not finite; see `GuardedOptimizer.step`."""
        self.scaler.unscale_(self.optimizer)
        masked = self._guarded.step(factor, is_loss_finite, clip_norm=self._clip_norm)
        self.scaler.update()
        return masked

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        if isinstance(self._network, DistributedDataParallel) and not is_last:
            return self._network.no_sync()
        return nullcontext()
