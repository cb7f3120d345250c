"""A training as its hooks see it, and what a hook is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from retina.evaluation.evaluator import EvaluationResult
from retina.modeling.detector import RetinaNet
from retina.structures import Batch
from retina.training.forward import ForwardHook
from retina.training.metric_log import RunLog
from retina.training.progress import TrainingProgress
from retina.training.run_folder import RunFolder
from retina.training.step import StepResult


@dataclass(slots=True)
class TrainingRun:
    """The position of a training, and where it is told.

    Attributes:
        folder: what it leaves on disk.
        detector: what is trained.
        evaluated: what is scored and saved: the same, or the average of its weights.
        total_steps: optimizer steps of the whole training.
        steps_per_epoch: of the batch sampler.
        step: optimizer steps done.
        lr: the learning rate of the last step.
        is_evaluated: False where the evaluation at the end of an epoch is still due.
        stop_reason: why a hook wants the training to end here; empty where none does.
        hooks: all of them, in the order in which they are called.
        log: numbers and texts on disk; writes nothing but on the first rank.
        progress: what people see; silent but on the first rank.
    """

    folder: RunFolder
    detector: RetinaNet
    evaluated: RetinaNet
    total_steps: int
    steps_per_epoch: int
    step: int = 0
    lr: float = 0.0
    is_evaluated: bool = True
    stop_reason: str = ""
    hooks: Sequence[Hook] = ()
    log: RunLog = field(default_factory=RunLog)
    progress: TrainingProgress = field(default_factory=lambda: TrainingProgress(0, quiet=True))

    @property
    def epoch(self) -> int:
        """The epoch that the last step belongs to, from 1."""
        return -(-self.step // self.steps_per_epoch)

    @property
    def num_epochs(self) -> int:
        """Of the whole training; the last may be one in part."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was that of an epoch, or of the training."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    @property
    def is_over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.total_steps or bool(self.stop_reason)


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

    Every method but `state_dict` is called on every rank, in the order of the hooks, so that all
    of them may talk to each other. ``run.log`` and ``run.progress`` do nothing but on the first.
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
        """After an epoch; without a result where no evaluation was due.

        With ``training.evaluations`` only after the epochs that are evaluated.
        """

    def diagnose(self, run: TrainingRun, failed: FailedStep) -> StepDiagnosis | None:
        """Look into a step that was not finite; weights and statistics are as before it."""

    def state_dict(self) -> dict[str, Any]:
        """What must be in a checkpoint for the training to go on as if it had not stopped.

        Only the first rank is asked; every rank is given it back.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; what was begun since then is forgotten."""
