"""What goes on beside the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from retina.evaluation.evaluator import EvaluationResult
from retina.structures import Batch
from retina.training.forward import ForwardHook
from retina.training.run import TrainingRun
from retina.training.step import StepResult


@dataclass(frozen=True, slots=True)
class FailedStep:
    """A step that was not finite and changed nothing.

    Attributes:
        step: its number, from 1.
        micro_batches: this rank's share of it, in host memory.
        lr: its learning rate.
    """

    step: int
    micro_batches: tuple[Batch, ...]
    lr: float


@dataclass(frozen=True, slots=True)
class StepDiagnosis:
    """What a hook found out about this rank's share of a failed step.

    Attributes:
        is_finite: whether nothing of it is NaN or infinite when it is computed alone.
        where: where it breaks, a clause.
        fix: what to do about it, a sentence without its full stop; empty where that is not known.
        keep: writes down what is needed to look into it later, and returns how; called where this
            rank's share is at fault.
    """

    is_finite: bool
    where: str
    fix: str
    keep: Callable[[], str]


class Hook:
    """Something that goes on beside the training; each method does nothing unless overridden.

    Every method is called on every rank, in the order of the hooks, so that all of them may talk to
    each other. ``run.log`` and ``run.progress`` do nothing but on the first.
    """

    name: ClassVar[str] = ""
    """Its key in the training state; every hook with a state has its own."""

    def begin(self, run: TrainingRun) -> None:
        """Before the first step; also after a resume, and after going back to a checkpoint."""

    def before_step(self, step: int, micro_batches: list[Batch]) -> ForwardHook | None:
        """Before a step, by its number from 1; what comes back is shown its predictions."""
        return None

    def before_update(self, run: TrainingRun) -> None:
        """A step is under way and has changed nothing; where this raises, it leaves no trace."""

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        """After step number ``run.step``; reading the result would wait for the device."""

    def flush(self, run: TrainingRun) -> None:
        """Before a report or a checkpoint, after the step: the time to wait for the device."""

    def report(self, run: TrainingRun) -> dict[str, float]:
        """Numbers for the line of the log that is written every so many steps."""
        return {}

    def end_epoch(self, run: TrainingRun, result: EvaluationResult | None) -> None:
        """After an epoch; without a result where no evaluation was due."""

    def diagnose(self, run: TrainingRun, failed: FailedStep) -> StepDiagnosis | None:
        """Look into a step that was not finite; weights and statistics are as before it."""

    def state_dict(self) -> dict[str, Any]:
        """What must be in a checkpoint for the training to go on as if it had not stopped."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; what was begun since then is forgotten."""
