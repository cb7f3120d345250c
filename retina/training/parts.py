"""The parts of a training that change as it goes on, taken into a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retina.errors import UserError
from retina.modeling.detector import RetinaNet
from retina.objective.criterion import Criterion
from retina.training.averaging import WeightAverage
from retina.training.checkpoint import TrainingState


@dataclass(frozen=True, slots=True)
class TrainedParts:
    """What an optimizer step changes; ``average`` is None where no average is kept."""

    detector: RetinaNet
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.GradScaler
    average: WeightAverage[RetinaNet] | None

    @property
    def best_weights(self) -> RetinaNet:
        """The detector to evaluate and to keep: the average, where there is one."""
        return self.detector if self.average is None else self.average.module

    def are_finite(self) -> bool:
        """Whether no weight is NaN or infinite; waits for the device."""
        norms = torch.stack(torch._foreach_norm(list(self.detector.parameters())))
        return bool(norms.isfinite().all())

    def state_dicts(self) -> dict[str, Any]:
        """The fields of `TrainingState` that these parts fill."""
        return {
            "detector": self.detector.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
        }

    def restore(self, state: TrainingState, path: Path) -> None:
        """Take over a state; the optimizer's settings stay as they are configured now.

        Raises:
            UserError: the state is of another model, optimizer or kind of training; names ``path``.
        """
        if (self.average is None) != (state.average is None):
            raise UserError(
                f"{path}: was written {'without' if state.average is None else 'with'} a weight "
                "average; resume with the training.average_decay that the run had"
            )
        configured = [_settings(group) for group in self.optimizer.param_groups]
        try:
            saved = [_settings(group) for group in state.optimizer["param_groups"]]
            if [set(group) for group in saved] != [set(group) for group in configured]:
                raise ValueError("the optimizer is of another kind")
            self.detector.load_state_dict(state.detector)
            self.criterion.load_state_dict(state.criterion)
            self.optimizer.load_state_dict(state.optimizer)
            if state.scaler:
                self.scaler.load_state_dict(state.scaler)
            if self.average is not None and state.average is not None:
                self.average.module.load_state_dict(state.average)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: does not fit this config (other classes, model or optimizer?): "
                f"{' '.join(str(error).split())[:300]}. Resume with the run's own config.yaml, or "
                "give another output_dir; to start from its weights, model.initialize_from="
                f"{path.with_name('last.safetensors')}"
            ) from None
        for group, settings in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(settings)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
