"""An exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from retina.training.run import Hook, TrainingRun
from retina.training.step import StepResult

M = TypeVar("M", bound=nn.Module)


class WeightAverage(Hook, Generic[M]):
    """A second set of weights that follows the trained ones slowly.

    The decay grows as ``(1 + step) / (10 + step)`` up to its final value, so that the first
    steps do not leave the average at the random start. Floating buffers (running statistics of
    norms) are averaged too, the others copied.
    """

    name: ClassVar[str] = "average"

    def __init__(self, module: M, decay: float) -> None:
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int, *, masked: Tensor | None = None) -> None:
        """Move the average after optimizer step number ``step`` (from 0).

        Args:
            module: the trained weights.
            step: its number.
            masked: ``()`` on the device; where it is not 0, the step has changed nothing, and the
                average stays as it is. None: it has.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        current = module.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(current[name].detach())
            else:
                average.copy_(current[name])
        if masked is None:
            torch._foreach_lerp_(averages, values, 1 - decay)
            return
        weight = torch.where(masked != 0, 0.0, 1 - decay)
        torch._foreach_lerp_(averages, values, [weight] * len(averages))

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        """Take the new weights into the average; where the step was masked, it stays as it was."""
        self.update(run.detector, run.step - 1, masked=result.masked)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, by their names in the detector."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over averaged weights."""
        self.module.load_state_dict(state)
