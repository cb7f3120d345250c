"""Where a training stands: what its hooks see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retina.modeling.detector import RetinaNet
from retina.training.metric_log import RunLog
from retina.training.progress import TrainingProgress
from retina.training.run_folder import RunFolder

if TYPE_CHECKING:
    from retina.training.hooks.hook import Hook


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
    def ends_epoch(self) -> bool:
        """Whether the last step was that of an epoch, or of the training."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    @property
    def is_over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.total_steps or bool(self.stop_reason)
