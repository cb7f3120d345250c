"""The configuration of the training loop."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from retina.configuration import Config
from retina.devices import PrecisionChoice
from retina.errors import UserError
from retina.training.hooks.divergence_config import DivergencePolicy, StopConfig
from retina.training.loggers import AnyLoggerConfig

Count = Annotated[int, Field(ge=1)]


def _checked_batch_size(value: Any) -> Any:
    # One sentence about both; a union would give one about each.
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("input should be a whole number greater than or equal to 1, or 'auto'")


class TrainingConfig(Config):
    """How long and how a detector is trained."""

    epochs: Count = 12
    """Passes over the training set."""
    min_steps: Count | None = None
    """Go on to this many optimizer steps, where ``epochs`` are fewer: a small set is passed over
    more often, the last time perhaps in part."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, where that comes first; it wins over ``min_steps``."""
    batch_size: Annotated[int | Literal["auto"], BeforeValidator(_checked_batch_size)] = 16
    """Images of one optimizer step, over all processes and micro-batches; ``auto`` takes the
    most that the GPU holds when the training begins. See docs/configuration.md."""
    accumulation_steps: Count = 1
    """In how many micro-batches a process computes its share of a step, to save memory."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Processes that load images, per training process; 0 loads in the training process."""
    precision: PrecisionChoice = "auto"
    """``fp32``, ``bf16``, ``fp16``; ``auto`` takes bf16 where it was measured to be fast."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    """Gradients longer than this (L2 norm over all weights) are scaled down to it."""
    on_divergence: DivergencePolicy = StopConfig()
    """When the loss or a gradient is not finite: ``stop``, ``skip`` the step, or ``rewind`` to the
    last checkpoint. See docs/divergence.md."""
    average_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of the exponential moving average of the weights that is evaluated and saved instead
    of the trained weights; null keeps no average."""
    evaluate_every_epochs: Count = 1
    """Score the validation set after every so many epochs, and always after the last."""
    evaluations: Count | None = None
    """Score it so many times, at ends of epochs that are spread evenly, in the place of
    ``evaluate_every_epochs``; fewer where there are fewer epochs. Checkpoints and detectors are
    then saved at these ends alone: the epochs of a small set may last a few steps."""
    early_stopping_evaluations: Count | None = None
    """Stop when so many evaluations in a row brought no better validation AP. Only those count that
    come when the learning rate has fallen to half of its peak: before, a plateau says nothing."""
    checkpoint_every_steps: Count | None = None
    """Save the training state after every so many optimizer steps, besides at the ends of
    epochs."""
    checkpoint_every_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Save it, too, when so many minutes have passed since it was last saved."""
    log_every_steps: Count = 20
    """Log losses and speed every so many optimizer steps."""
    anatomy_every_steps: Count | None = 100
    """Log what the classification loss is made of (easy negatives, other negatives, positives) at
    the first and at every so many optimizer steps; null never. See docs/loss-anatomy.md."""
    pictures: Annotated[int, Field(ge=0)] = 8
    """Validation images shown in TensorBoard with truth and predictions."""
    loggers: tuple[AnyLoggerConfig, ...] = ()
    """Services that are told the curves and images, too: ``{kind: wandb}``, ``{kind: mlflow}``; at
    most one of each. See docs/loggers.md."""
    collective_timeout_minutes: Annotated[float, Field(gt=0.0)] = 30.0
    """How long processes that train together wait for each other before they give up; longer than
    the validation of the slowest."""
    deterministic: bool = False
    """Use only deterministic algorithms; slower on a GPU."""

    @model_validator(mode="after")
    def _one_frequency(self) -> Self:
        if self.evaluations is not None and self.evaluate_every_epochs > 1:
            raise ValueError(
                f"evaluations ({self.evaluations}) and evaluate_every_epochs "
                f"({self.evaluate_every_epochs}) both say when to evaluate: set evaluations to "
                "null, or leave the other at 1"
            )
        return self

    @model_validator(mode="after")
    def _one_logger_of_a_kind(self) -> Self:
        kinds = [logger.package for logger in self.loggers]
        if len({*kinds}) < len(kinds):
            raise ValueError(f"loggers: one of each kind, not {', '.join(kinds)}")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole training."""
        steps = max(self.epochs * steps_per_epoch, self.min_steps or 0)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def evaluates_after(self, epoch: int, num_epochs: int) -> bool:
        """Whether the validation set is scored at the end of an epoch.

        Args:
            epoch: counted from 1.
            num_epochs: of the whole training, one in part included.
        """
        if epoch == num_epochs:
            return True
        if self.evaluations is None:
            return epoch % self.evaluate_every_epochs == 0
        # So many of the first ``epoch`` epochs are due: one more than before, where this one is.
        due = [number * self.evaluations // num_epochs for number in (epoch - 1, epoch)]
        return due[0] < due[1]

    @property
    def decided_batch_size(self) -> int:
        """The number of ``batch_size``.

        Raises:
            UserError: it is still ``auto``.
        """
        if self.batch_size == "auto":
            raise UserError(
                "training.batch_size: 'auto' is decided when a training begins; here, write the "
                "number that it was decided to (its run folder's config.yaml has it)"
            )
        return self.batch_size
