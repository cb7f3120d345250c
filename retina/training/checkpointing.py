"""When the state of a training is written, and how it is taken over again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from retina.distributed import barrier, broadcast_object, gather_objects, is_distributed, rank
from retina.errors import DivergedError, UserError
from retina.instruments.anatomy.hook import AnatomyHook
from retina.training.checkpoint import TrainingState, save_state
from retina.training.config import TrainingConfig
from retina.training.divergence import DivergenceWatch
from retina.training.generators import generator_states, restore_generators
from retina.training.meter import StepMeter
from retina.training.metric_log import MetricLog
from retina.training.parts import TrainedParts
from retina.training.validation import Validation


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What tells one training from another.

    Attributes:
        config: the resolved experiment as YAML.
        dataset: the fingerprint of the training set.
        steps_per_epoch: of the plan.
    """

    config: str
    dataset: str
    steps_per_epoch: int


@dataclass(slots=True)
class Checkpoints:
    """Writes everything that changes in a training, and takes it over again.

    Attributes:
        path: of the newest state.
        identity: of the run.
        config: how often.
        parts, meter, validation, watch, anatomy: what changes, besides the position.
    """

    path: Path
    identity: RunIdentity
    config: TrainingConfig
    parts: TrainedParts
    meter: StepMeter
    validation: Validation
    watch: DivergenceWatch
    anatomy: AnatomyHook
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

    def save(self, log: MetricLog | None, *, step: int, is_evaluated: bool) -> None:
        """Write the state; every rank must call it, and only the first has a log.

        Raises:
            DivergedError: the weights are not finite.
            RunError: the disk is full.
        """
        self.watch.settle()
        if not self.parts.are_finite():
            raise DivergedError(
                f"the weights are not finite after step {step}; lower optimizer.lr, set "
                "training.clip_norm, or use training.precision=fp32. The last checkpoint is "
                f"intact: {self.path}"
            )
        generators = gather_objects(generator_states())
        if log is not None:
            state = TrainingState(
                config=self.identity.config,
                dataset=self.identity.dataset,
                step=step,
                steps_per_epoch=self.identity.steps_per_epoch,
                is_evaluated=is_evaluated,
                best_metric=self.validation.best_ap,
                epochs_without_gain=self.validation.evaluations_without_gain,
                divergence=self.watch.state.state_dict(),
                meter=self.meter.state_dict(),
                anatomy=self.anatomy.state_dict(),
                log=log.position(),
                generators=generators,
                **self.parts.state_dicts(),
            )
            save_state(state, self.path)
        self._saved_at = time.monotonic()
        barrier()

    def restore(self, state: TrainingState, path: Path) -> None:
        """Take over a state, but for the position.

        Raises:
            UserError: it is of another training; names ``path``.
        """
        identity = self.identity
        if (state.dataset, state.steps_per_epoch) != (identity.dataset, identity.steps_per_epoch):
            raise UserError(
                f"{path}: an epoch of that run had {state.steps_per_epoch} steps, here it has "
                f"{identity.steps_per_epoch}, or the images or boxes have changed. Resume with "
                "the data and the config.yaml of the run, or give another output_dir"
            )
        self.parts.restore(state, path)
        if rank() < len(state.generators):
            restore_generators(state.generators[rank()])
        self.validation.best_ap = state.best_metric
        self.validation.evaluations_without_gain = state.epochs_without_gain
        self.watch.state.load_state_dict(state.divergence)
        self.meter.load_state_dict(state.meter)
        self.anatomy.load_state_dict(state.anatomy)
