"""When the state of a training is written, and how it is taken over again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from retina.distributed import (
    barrier,
    broadcast_object,
    gather_objects,
    is_distributed,
    is_main_process,
    rank,
)
from retina.errors import DivergedError, UserError
from retina.modeling.loading import described, misfits
from retina.modeling.pretrained import WeightOrigin
from retina.training.checkpoint import TrainingState, save_state
from retina.training.config import TrainingConfig
from retina.training.generators import generator_states, restore_generators
from retina.training.meter import StepMeter
from retina.training.run import Hook, TrainingRun
from retina.training.step import TrainingStep
from retina.training.validation import Validation
from retina.wording import counted, first_line


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What tells one training from another.

    Attributes:
        config: the resolved experiment as YAML.
        dataset: the fingerprint of the training set.
        steps_per_epoch: of the batch sampler.
        origin: of the weights that it began with; None for random ones.
    """

    config: str
    dataset: str
    steps_per_epoch: int
    origin: WeightOrigin | None


@dataclass(slots=True)
class Checkpoints:
    """Writes everything that changes in a training, and takes it over again.

    Attributes:
        path: of the newest state.
        identity: of the run.
        config: how often.
        step, meter, validation: what changes, besides the position and the hooks of the run.
    """

    path: Path
    identity: RunIdentity
    config: TrainingConfig
    step: TrainingStep
    meter: StepMeter
    validation: Validation
    _saved_at: float = field(default_factory=time.monotonic)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is wanted after this step; all ranks must ask.

        Several processes ask the clock after every tenth step.
        """
        every = self.config.checkpoint_every_steps
        if every is not None and step % every == 0:
            return True
        minutes = self.config.checkpoint_every_minutes
        if minutes is None or (is_distributed() and step % 10):
            return False
        return broadcast_object(time.monotonic() - self._saved_at >= 60 * minutes)

    def save(self, run: TrainingRun) -> None:
        """Write the state; every rank must call it.

        Raises:
            DivergedError: the weights are not finite.
            RunError: the disk is full.
        """
        for hook in run.hooks:
            hook.flush(run)
        if not weights_are_finite(run.detector):
            raise DivergedError(
                f"the weights are not finite after step {run.step}; lower optimizer.lr, set "
                "training.clip_norm, or use training.precision=fp32. The last checkpoint is "
                f"intact: {self.path}"
            )
        generators = gather_objects(generator_states())
        if is_main_process():
            state = TrainingState(
                config=self.identity.config,
                dataset=self.identity.dataset,
                pretrained=None
                if self.identity.origin is None
                else self.identity.origin.model_dump(),
                step=run.step,
                steps_per_epoch=self.identity.steps_per_epoch,
                is_evaluated=run.is_evaluated,
                best_metric=self.validation.best_ap,
                detector=run.detector.state_dict(),
                criterion=self.step.forward.criterion.state_dict(),
                optimizer=self.step.optimizer.state_dict(),
                scaler=self.step.scaler.state_dict(),
                hooks=_states_of(run.hooks),
                meter=self.meter.state_dict(),
                log=run.log.position(),
                generators=generators,
            )
            save_state(state, self.path)
        self._saved_at = time.monotonic()
        barrier()

    def restore(self, run: TrainingRun, state: TrainingState, path: Path) -> None:
        """Take over a state; the optimizer's settings stay as they are configured now.

        Raises:
            UserError: it is of another training, model or optimizer; names ``path``.
        """
        identity = self.identity
        if (state.dataset, state.steps_per_epoch) != (identity.dataset, identity.steps_per_epoch):
            raise UserError(
                f"{path}: an epoch of that run had {counted(state.steps_per_epoch, 'step')}, "
                "here it has "
                f"{identity.steps_per_epoch}, or the images or boxes have changed. Resume with "
                "the data and the config.yaml of the run, or give another output_dir"
            )
        try:
            self._load(run, state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: does not fit this config (other classes, model or optimizer?): "
                f"{first_line(error)}. Resume with the run's own config.yaml, or "
                "give another output_dir; to start from its weights, model.initialize_from="
                f"{path.with_name('last.safetensors')}"
            ) from None
        if rank() < len(state.generators):
            restore_generators(state.generators[rank()])
        best = state.best_metric
        self.validation.best_ap = best if best is not None and best >= 0 else None
        self.meter.load_state_dict(state.meter)
        run.step, run.is_evaluated = state.step, state.is_evaluated

    def _load(self, run: TrainingRun, state: TrainingState) -> None:
        optimizer, scaler = self.step.optimizer, self.step.scaler
        configured = [_settings(group) for group in optimizer.param_groups]
        saved = [_settings(group) for group in state.optimizer["param_groups"]]
        if [set(group) for group in saved] != [set(group) for group in configured]:
            raise ValueError("the optimizer is of another kind")
        problems = misfits(run.detector.state_dict(), state.detector)
        if problems:
            raise ValueError(f"name or size mismatch in the weights, {described(problems)}")
        run.detector.load_state_dict(state.detector)
        self.step.forward.criterion.load_state_dict(state.criterion)
        optimizer.load_state_dict(state.optimizer)
        if state.scaler:
            scaler.load_state_dict(state.scaler)
        for group, settings in zip(optimizer.param_groups, configured, strict=True):
            group.update(settings)
        for hook in run.hooks:
            if hook.name in state.hooks:  # else it was not there, and starts now
                hook.load_state_dict(state.hooks[hook.name])


def _states_of(hooks: Sequence[Hook]) -> dict[str, dict[str, Any]]:
    states = [(hook.name, hook.state_dict()) for hook in hooks]
    named = {name: state for name, state in states if name}
    assert len(named) == sum(bool(name) for name, _ in states), "two hooks have the same name"
    assert all(name or not state for name, state in states), "a hook with a state needs a name"
    return named


def weights_are_finite(detector: torch.nn.Module) -> bool:
    """Whether no weight is NaN or infinite; waits for the device."""
    norms = torch.stack(torch._foreach_norm(list(detector.parameters())))
    return bool(norms.isfinite().all())


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
