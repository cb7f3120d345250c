"""What keeps a step that is not finite from changing anything, without asking the device.

A flag on the device masks the update; the host learns of it one step later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retina.distributed import is_distributed, sum_over_ranks
from retina.objective.criterion import LossSums

_BatchStatistics = nn.modules.batchnorm._NormBase


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a step, on the host.

    Attributes:
        is_applied: False where the step was masked, on every rank.
        losses: of all ranks; classification and box regression, divided as they were reported.
        is_loss_finite: of all ranks. Where it is and the step is masked, a gradient was not finite.
        is_own_loss_finite: of this rank's images.
    """

    is_applied: bool
    losses: tuple[float, float]
    is_loss_finite: bool
    is_own_loss_finite: bool


class PendingVerdict:
    """A verdict on its way from the device; made without waiting for it.

    Args:
        masked: ``()`` float32, 1 where the step was masked.
        losses: of all ranks.
        own: ``()`` bool, whether this rank's losses were finite.
    """

    def __init__(self, masked: Tensor, losses: LossSums, own: Tensor) -> None:
        values = torch.stack([masked, losses.classification, losses.box_regression, own.float()])
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # Of its own device: that of this process may be another one (device=cuda:1).
            self._copied.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values

    def read(self) -> Verdict:
        """The verdict; waits until the step that it is about has come to its end."""
        if self._copied is not None:
            self._copied.synchronize()
        masked, classification, box, own = self._values.tolist()
        losses = torch.tensor([classification, box])
        return Verdict(
            is_applied=masked == 0,
            losses=(classification, box),
            is_loss_finite=bool(losses.isfinite().all()),
            is_own_loss_finite=own == 1,
        )


class RunningState:
    """Tensors that a step moves on its way, and that a masked step must leave as they were.

    Tensors of one type are handled as one, so that the dozens of norms of a backbone cost a few
    kernels and not hundreds.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        self._groups = list(by_type.values())
        self._before: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Take what the tensors are now as what to go back to."""
        self._before = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def restore_where(self, masked: Tensor) -> None:
        """Go back to what was remembered where the flag ``()`` is not 0; else nothing changes."""
        for group, before in zip(self._groups, self._before, strict=True):
            _write(group, torch.where(masked != 0, before, _flat(group)))

    @contextmanager
    def as_remembered(self) -> Iterator[None]:
        """The tensors as they were remembered in the block, and as they are now after it."""
        now = [_flat(group) for group in self._groups]
        for group, before in zip(self._groups, self._before, strict=True):
            _write(group, before)
        try:
            yield
        finally:
            for group, values in zip(self._groups, now, strict=True):
                _write(group, values)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def _write(group: list[Tensor], values: Tensor) -> None:
    parts = values.split_with_sizes([tensor.numel() for tensor in group])
    shaped = [part.view(tensor.shape) for part, tensor in zip(parts, group, strict=True)]
    torch._foreach_copy_(group, shaped)


def running_statistics(module: nn.Module) -> list[Tensor]:
    """The buffers of the norms that learn statistics as they are used."""
    return [
        buffer
        for part in module.modules()
        if isinstance(part, _BatchStatistics) and part.track_running_stats
        for buffer in part.buffers(recurse=False)
    ]


class GuardedOptimizer:
    """Updates the weights, unless the loss or a gradient is not finite on any rank.

    The optimizer's own kernels leave weights and state alone where their flag ``found_inf`` is 1:
    the mechanism of `torch.GradScaler`. The pass that scales the gradients looks for infinities,
    too, so that a finite step costs nothing more.

    Args:
        optimizer: with ``fused=True``.

    Raises:
        ValueError: the optimizer cannot mask an update.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"{type(optimizer).__name__} cannot leave out an update on the device; make it "
                "with fused=True"
            )
        self._optimizer = optimizer

    def step(self, factor: Tensor, is_loss_finite: Tensor, *, clip_norm: float | None) -> Tensor:
        """Scale the gradients, and update where everything is finite.

        Args:
            factor: ``()`` float32, what the gradients are multiplied with.
            is_loss_finite: ``()`` bool.
            clip_norm: scale longer gradients down to this L2 norm.

        Returns:
            ``()`` float32: 1 where nothing was changed, on every rank; else 0.
        """
        parameters = [
            parameter
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        gradients = [parameter.grad for parameter in parameters]
        masked = 1.0 - is_loss_finite.float()
        if clip_norm is not None:
            norm = factor * nn.utils.get_total_norm(gradients, foreach=True)
            masked = torch.maximum(masked, (~norm.isfinite()).float())
            factor = factor * (clip_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, masked, factor)
        if is_distributed():  # gradients are equal on all ranks; that no rank goes alone is cheap
            masked = sum_over_ranks(masked).clamp(max=1.0)
        self._begin_momentum(parameters)
        self._optimizer.found_inf = masked  # type: ignore[attr-defined]
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        try:
            self._optimizer.step()
        finally:
            del self._optimizer.found_inf  # type: ignore[attr-defined]
            del self._optimizer.grad_scale  # type: ignore[attr-defined]
        return masked

    def _begin_momentum(self, parameters: Sequence[Tensor]) -> None:
        """Give SGD the momentum that it has before its first update.

        Fused SGD allocates it in its first step and fills it in the same kernel. A masked first
        step leaves it unfilled, and the next one goes on with whatever was in that memory (torch
        2.14). The start is -0, since adding to -0 gives any number back to the last bit.
        """
        state = self._optimizer.state
        if not isinstance(self._optimizer, torch.optim.SGD) or len(state) >= len(parameters):
            return
        if any(
            group["momentum"] and not group["dampening"] for group in self._optimizer.param_groups
        ):
            for parameter in parameters:
                if state[parameter].get("momentum_buffer") is None:
                    state[parameter]["momentum_buffer"] = torch.full_like(parameter, -0.0)
