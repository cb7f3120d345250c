"""The training loop: epochs of steps, evaluations between them, checkpoints and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retina.distributed import is_main_process
from retina.errors import DivergedError
from retina.structures import Batch
from retina.training.batches import TrainingBatches
from retina.training.checkpointing import Checkpoints
from retina.training.config import TrainingConfig
from retina.training.forward import joined
from retina.training.hooks.divergence import DivergenceWatch
from retina.training.memory import naming_the_batch
from retina.training.meter import StepMeter
from retina.training.metric_log import MetricLog, RunLog
from retina.training.optimization import set_learning_rate
from retina.training.progress import StepReport, TrainingProgress
from retina.training.resuming import ResumePoint, find_resume_point
from retina.training.run import TrainingRun
from retina.training.step import TrainingStep
from retina.training.stopping import StopRequest
from retina.training.validation import Validation


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a training ended.

    Attributes:
        step: optimizer steps done.
        best_ap: the best validation AP, or None where there was nothing to score.
        signal: the number of the signal that stopped it, or that came while it was evaluated at the
            end; None without one.
        seconds: spent in training steps and their data, without evaluations.
        report: the page about the best detector; None where none was written.
    """

    step: int
    best_ap: float | None
    signal: int | None
    seconds: float
    report: Path | None = None


class Trainer:
    """Trains a detector; everything it needs comes from outside.

    Args:
        run: the position, and the hooks that go on beside the training.
        step: one optimizer step.
        batches: what is learned from.
        learning_rate: at an optimizer step, from 0.
        meter: adds up losses and times between two reports.
        validation: what is done at the end of an epoch.
        checkpoints: how all of it is saved and taken over again.
        divergence: one of the hooks; it decides what becomes of a step that is not finite.
        config: the numbers of the loop.
        resume: the folder is that of a run; its log is cut to where the training goes on.
        resume_from: the state to go on from; None starts anew.
        quiet: print nothing.
    """

    def __init__(
        self,
        *,
        run: TrainingRun,
        step: TrainingStep,
        batches: TrainingBatches,
        learning_rate: Callable[[int], float],
        meter: StepMeter,
        validation: Validation,
        checkpoints: Checkpoints,
        divergence: DivergenceWatch,
        config: TrainingConfig,
        resume: bool = False,
        resume_from: ResumePoint | None = None,
        quiet: bool = False,
    ) -> None:
        self.training_run = run
        self._batches = batches
        self._learning_rate = learning_rate
        self._checkpoints = checkpoints
        self._step = step
        self._meter = meter
        self.validation = validation
        self._divergence = divergence
        self._config = config
        self._quiet = quiet or not is_main_process()
        self._log_position: dict[str, int] | None = {} if resume else None
        self._resumed: list[str] = [] if resume_from is None else self._restore(resume_from)

    def run(self) -> TrainingOutcome:
        """Train to the end, to a signal, or to the early stop.

        Raises:
            DivergedError: the loss or the weights are not finite, and the policy ends it there.
            RunError: the disk is full, or memory ran out. The last checkpoint is intact.
        """
        with StopRequest() as stop:
            while True:
                try:
                    return self._train(stop)
                except DivergedError as error:
                    self._rewind(error)

    def _train(self, stop: StopRequest) -> TrainingOutcome:
        """`run` without going back."""
        run, signal = self.training_run, None
        run.log = self._open_log()
        run.progress = TrainingProgress(run.total_steps, first_step=run.step, quiet=self._quiet)
        try:
            with run.progress:
                self._begin()
                if run.is_over:
                    run.progress.message("the training is already complete")
                    return self._outcome(stop.agreed_now())
                for micro_batches in self._load():
                    self._advance(micro_batches)
                    signal = stop.agreed(run.step)
                    at_end = self._is_at_end()
                    is_saved = at_end or signal is not None or self._checkpoints.is_due(run.step)
                    if at_end or run.step % self._config.log_every_steps == 0:
                        self._report()
                    if is_saved:
                        with self._meter.paused():
                            run.is_evaluated = not at_end
                            self._checkpoints.save(run)
                    if signal is not None:
                        run.progress.message(f"stopped by signal {signal} after step {run.step}")
                        break
                    if at_end:
                        with self._meter.paused():
                            self._end_epoch()
                    if run.stop_reason:
                        run.progress.message(run.stop_reason)
                        break
                if signal is None:  # the last evaluation takes long enough for one to come
                    signal = stop.agreed_now()
        finally:
            run.log.close()
        return self._outcome(signal)

    def _begin(self) -> None:
        """Everything before the first step."""
        run = self.training_run
        for message in self._resumed:
            run.progress.message(message)
        for hook in run.hooks:
            hook.begin(run)
        if self._divergence.needs_checkpoint:  # also keeps what going back has changed
            self._checkpoints.save(run)
        if not run.is_evaluated:
            self._set_learning_rate(run.step - 1)  # the state to save is that after this step
            self._end_epoch()

    def _load(self) -> Iterator[list[Batch]]:
        """The micro-batches of each step that is left."""
        run, group = self.training_run, list[Batch]()
        for batch in self._meter.timed(self._batches.between(run.step, run.total_steps)):
            group.append(batch)
            if len(group) == self._batches.num_micro_batches:
                yield group
                group = []

    def _advance(self, micro_batches: list[Batch]) -> None:
        """One optimizer step, and what its hooks do about it."""
        run = self.training_run
        self._set_learning_rate(run.step)
        forward_hook = joined([hook.before_step(run.step + 1, micro_batches) for hook in run.hooks])
        with naming_the_batch(
            micro_batches,
            step=run.step + 1,
            device=self._step.forward.device,
            checkpoint=run.folder.last_state,
        ):
            result = self._step(
                micro_batches,
                forward_hook=forward_hook,
                before_update=self._before_update,
            )
        run.step += 1
        self._meter.add(result.losses, sum(len(batch) for batch in micro_batches))
        for hook in run.hooks:
            hook.after_step(run, result)

    def _set_learning_rate(self, step: int) -> None:
        run = self.training_run
        run.lr = self._learning_rate(step) * self._divergence.state.lr_factor
        set_learning_rate(self._step.optimizer, run.lr)

    def _before_update(self) -> None:
        for hook in self.training_run.hooks:
            hook.before_update(self.training_run)

    def _report(self) -> None:
        """Write a line of the log, and show where the training stands."""
        run = self.training_run
        for hook in run.hooks:
            hook.flush(run)
        numbers = self._meter.flush()
        for hook in run.hooks:
            numbers |= hook.report(run)
        run.log.scalars("train", run.step, {**numbers, "lr": run.lr, "epoch": run.epoch})
        run.progress.report(StepReport.of(run.step, run.epoch, run.lr, numbers))

    def _is_at_end(self) -> bool:
        """Whether the last step is followed by what belongs to an epoch's end.

        Where the evaluations are counted, those of the other epochs are steps like any other: an
        epoch of three steps would save for longer than it trains.
        """
        run = self.training_run
        return run.ends_epoch and (self._config.evaluations is None or self._is_evaluation_due())

    def _is_evaluation_due(self) -> bool:
        run = self.training_run
        return self._config.evaluates_after(run.epoch, run.num_epochs)

    def _end_epoch(self) -> None:
        """Evaluate where it is due, and save the detectors and that it is done."""
        run = self.training_run
        result = self.validation.end_epoch(run, is_due=self._is_evaluation_due())
        for hook in run.hooks:
            hook.end_epoch(run, result)
        run.is_evaluated = True
        self._checkpoints.save(run)

    def _open_log(self) -> RunLog:
        if not is_main_process():
            return RunLog()
        run = self.training_run
        log = MetricLog(run.folder.path, resume_at=self._log_position)
        if not self._resumed:
            log.text("config", self._checkpoints.identity.config, run.step)
        return log

    def _rewind(self, error: DivergedError) -> None:
        """Go back to the last checkpoint, if that is the policy; every rank must call it."""
        state = self._divergence.rewind(error)
        point = find_resume_point(self.training_run.folder.last_state)
        if point is None:
            raise error
        self._restore(point)
        self._divergence.state = state
        self._resumed = [
            f"warning: {error}. Back to step {self.training_run.step} with the learning rate times "
            f"{state.lr_factor:g} (rewind {state.num_rewinds})"
        ]

    def _restore(self, point: ResumePoint) -> list[str]:
        """Take over a state; returns what is to be said about it."""
        self._checkpoints.restore(self.training_run, point.state, point.path)
        self._log_position = point.state.log
        messages = [f"resumed at step {point.state.step} from {point.path}"]
        if point.passed_over:
            messages.insert(0, f"warning: {point.passed_over}; the state before it is taken")
        return messages

    def _outcome(self, signal: int | None) -> TrainingOutcome:
        return TrainingOutcome(
            self.training_run.step, self.validation.best_ap, signal, self._meter.training_seconds
        )
