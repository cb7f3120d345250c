"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from retina.datasets.batch_sampling import BatchSampler, BatchStream
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import Collate, LoaderConfig
from retina.devices import Precision
from retina.distributed import (
    is_main_process,
    rank,
    world_size,
)
from retina.errors import DivergedError
from retina.evaluation.evaluator import Evaluator
from retina.instruments.anatomy.hook import AnatomyHook
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion
from retina.runtime import TorchRuntime
from retina.structures import Batch
from retina.training.averaging import WeightAverage
from retina.training.checkpointing import Checkpoints, RunIdentity
from retina.training.config import TrainingConfig
from retina.training.divergence import DivergenceWatch, StepRecord
from retina.training.memory import naming_the_batch
from retina.training.meter import StepMeter
from retina.training.metric_log import MetricLog
from retina.training.optimization import LRFactor, set_learning_rate
from retina.training.parts import TrainedParts
from retina.training.progress import StepReport, TrainingProgress
from retina.training.resuming import ResumePoint, find_resume_point
from retina.training.run_folder import RunFolder
from retina.training.step import TrainingStep
from retina.training.stopping import StopRequest
from retina.training.unreadable import UnreadableImages
from retina.training.validation import Validation


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a training ended.

    Attributes:
        step: optimizer steps done.
        best_ap: the best validation AP, or None without a validation.
        signal: the number of the signal that stopped it, or that came while it was evaluated at the
            end; None without one.
        seconds: spent in training steps and their data, without evaluations.
    """

    step: int
    best_ap: float | None
    signal: int | None
    seconds: float


class Trainer:
    """Trains a detector; everything it needs comes from outside.

    Args:
        detector: on its device.
        criterion: on the same device.
        preprocess: how uint8 batches become the network's input.
        dataset: the training set.
        fingerprint: of the training set; the checkpoint of another one is refused.
        batch_sampler: which images make up which batch.
        loader: how batches are loaded.
        evaluator: scores the validation set; None trains without.
        optimizer: of the detector's trainable parameters.
        peak_lr: the learning rate at factor 1.
        lr_factor: the schedule.
        total_steps: optimizer steps of the whole training.
        config: the numbers of the loop.
        anatomy: takes the classification loss apart in some of the steps.
        precision: of the network.
        device: where to compute.
        run_config: the resolved experiment as YAML, kept in the checkpoint.
        folder: the run folder.
        resume: the folder is that of a run; its log is cut to where the training goes on.
        resume_from: the state to go on from; None starts anew.
        quiet: print nothing.
    """

    def __init__(
        self,
        *,
        detector: RetinaNet,
        criterion: Criterion,
        preprocess: Preprocess,
        dataset: DetectionDataset,
        fingerprint: str,
        batch_sampler: BatchSampler,
        loader: LoaderConfig,
        evaluator: Evaluator | None,
        make_runtime: Callable[[RetinaNet], TorchRuntime],
        optimizer: torch.optim.Optimizer,
        peak_lr: float,
        lr_factor: LRFactor,
        total_steps: int,
        config: TrainingConfig,
        anatomy: AnatomyHook,
        precision: Precision,
        device: torch.device,
        run_config: str,
        folder: RunFolder,
        resume: bool = False,
        resume_from: ResumePoint | None = None,
        quiet: bool = False,
    ) -> None:
        self._criterion = criterion
        self._preprocess = preprocess
        self._dataset = dataset
        self._batch_sampler = batch_sampler
        self._loader = loader
        self._optimizer = optimizer
        self._peak_lr = peak_lr
        self._lr_factor = lr_factor
        self._total_steps = total_steps
        self._config = config
        self._anatomy = anatomy
        self._device = device
        self._run_config = run_config
        self._folder = folder
        self._quiet = quiet or not is_main_process()
        self._step = 0
        self._is_evaluated = True
        self._lr = 0.0
        self._meter = StepMeter(device)
        self._validation = Validation(evaluator, make_runtime, folder, config.pictures)
        self._log_position: dict[str, int] | None = {} if resume else None
        self._training_step = TrainingStep(
            detector=detector,
            preprocess=preprocess,
            criterion=criterion,
            optimizer=optimizer,
            device=device,
            precision=precision,
            clip_norm=config.clip_norm,
        )
        decay = config.average_decay
        self._parts = TrainedParts(
            detector=detector,
            criterion=criterion,
            optimizer=optimizer,
            scaler=self._training_step.scaler,
            average=None if decay is None else WeightAverage(detector, decay),
        )
        self._watch = DivergenceWatch(
            policy=config.on_divergence,
            detector=detector,
            preprocess=preprocess,
            criterion=criterion,
            running=self._training_step.running,
            device=device,
            precision=precision,
            folder=folder.path,
            checkpoint=folder.last_state,
            run_config=run_config,
            class_names=dataset.categories.names,
            class_counts=dataset.class_counts,
        )
        self._checkpoints = Checkpoints(
            path=folder.last_state,
            identity=RunIdentity(run_config, fingerprint, batch_sampler.num_batches),
            config=config,
            parts=self._parts,
            meter=self._meter,
            validation=self._validation,
            watch=self._watch,
            anatomy=anatomy,
        )
        self._unreadable = UnreadableImages(
            folder.path / "unreadable_images.jsonl", limit=dataset.max_unreadable
        )
        self._resumed: list[str] = [] if resume_from is None else self._restore(resume_from)

    @property
    def _last(self) -> Path:
        return self._folder.last_state

    def run(self) -> TrainingOutcome:
        """Train to the end, to a signal, or to the early stop.

        Raises:
            DivergedError: the loss or the weights are not finite, and the policy ends it there.
            RunError: the disk is full, or memory ran out. The last checkpoint is intact.
        """
        with StopRequest() as stop:
            while True:
                try:
                    return self._run(stop)
                except DivergedError as error:
                    self._rewind(error)

    def _rewind(self, error: DivergedError) -> None:
        """Go back to the last checkpoint, if that is the policy; every rank must call it."""
        state = self._watch.rewind(error)
        point = find_resume_point(self._last)
        if point is None:
            raise error
        self._restore(point)
        self._watch.state = state
        self._resumed = [
            f"warning: {error}. Back to step {self._step} with the learning rate times "
            f"{state.lr_factor:g} (rewind {state.num_rewinds})"
        ]

    def _run(self, stop: StopRequest) -> TrainingOutcome:
        """`run` without going back."""
        log = None
        if is_main_process():
            log = MetricLog(self._folder.path, resume_at=self._log_position)
            if not self._resumed:
                log.text("config", self._run_config, self._step)
        progress = TrainingProgress(self._total_steps, first_step=self._step, quiet=self._quiet)
        steps_per_epoch = self._batch_sampler.num_batches
        signal: int | None = None
        try:
            with progress:
                self._watch.tell(log, progress)
                for message in self._resumed:
                    progress.message(message)
                if self._watch.needs_checkpoint:  # also keeps what going back has changed
                    self._save(log)
                if not self._is_evaluated:
                    self._end_epoch(log, progress)
                if self._is_over:
                    progress.message("the training is already complete")
                    return self._outcome(stop.agreed_now())
                for parts in self._batches():
                    self._advance(parts)
                    self._anatomy.report(self._step, log, progress)
                    ends_epoch = (
                        self._step % steps_per_epoch == 0 or self._step == self._total_steps
                    )
                    signal = stop.agreed(self._step)
                    is_reported = ends_epoch or self._step % self._config.log_every_steps == 0
                    is_saved = (
                        ends_epoch or signal is not None or self._checkpoints.is_due(self._step)
                    )
                    if is_reported or is_saved:
                        self._unreadable.settle(self._step, progress.message)
                    if is_reported:
                        self._report(log, progress)
                    if is_saved:
                        with self._meter.paused():
                            self._is_evaluated = not ends_epoch
                            self._save(log)
                    if signal is not None:
                        progress.message(f"stopped by signal {signal} after step {self._step}")
                        break
                    if ends_epoch:
                        with self._meter.paused():
                            self._end_epoch(log, progress)
                    if self._has_stalled:
                        progress.message("early stop: the validation AP no longer rises")
                        break
                if signal is None:  # the last evaluation takes long enough for one to come
                    signal = stop.agreed_now()
        finally:
            if log is not None:
                log.close()
        return self._outcome(signal)

    def _outcome(self, signal: int | None) -> TrainingOutcome:
        return TrainingOutcome(
            self._step, self._validation.best_ap, signal, self._meter.training_seconds
        )

    @property
    def _has_stalled(self) -> bool:
        """Whether so many evaluations without a gain have passed that the training should stop."""
        limit = self._config.early_stopping_evaluations
        return limit is not None and self._validation.evaluations_without_gain >= limit

    @property
    def _is_over(self) -> bool:
        return self._step >= self._total_steps or self._has_stalled

    def _advance(self, parts: list[Batch]) -> None:
        """One optimizer step."""
        self._lr = self._peak_lr * self._lr_factor(self._step) * self._watch.state.lr_factor
        set_learning_rate(self._optimizer, self._lr)
        step, done = self._training_step, self._step / self._total_steps
        number = self._step + 1
        with naming_the_batch(parts, step=number, device=self._device, checkpoint=self._last):
            losses = step(
                parts,
                progress=done,
                observer=self._anatomy.observer(number),
                before_update=self._watch.settle,
            )
        assert step.verdict is not None
        self._watch.note(StepRecord(number, parts, done, self._lr, step.verdict))
        self._meter.add(losses, sum(len(part) for part in parts))
        if self._parts.average is not None:
            self._parts.average.update(self._parts.detector, self._step, masked=step.masked)
        self._step = number

    def _batches(self) -> Iterator[list[Batch]]:
        """This rank's share of every global batch that is left, in accumulated parts."""
        parts = self._config.accumulation_steps
        loader = self._loader.build(
            self._dataset,
            BatchStream(
                self._batch_sampler,
                first_step=self._step,
                stop_step=self._total_steps,
                rank=rank(),
                world_size=world_size(),
                parts=parts,
            ),
            Collate(self._preprocess.size_divisor, self._preprocess.pad_to),
            num_workers=self._config.num_workers,
            pin_memory=self._device.type == "cuda",
        )
        group: list[Batch] = []
        for batch in self._meter.timed(iter(loader)):
            group.append(batch)
            self._unreadable.note(batch)
            if len(group) == parts:
                yield group
                group = []

    def _report(self, log: MetricLog | None, progress: TrainingProgress) -> None:
        self._watch.settle()
        report, lr = self._meter.flush(), self._lr
        epoch = (self._step - 1) // self._batch_sampler.num_batches + 1
        if log is not None:
            found = {**self._criterion.doubts(), **self._watch.counts}
            log.scalars("train", self._step, {**report, **found, "lr": lr, "epoch": epoch})
        progress.report(
            StepReport(
                step=self._step,
                epoch=epoch,
                loss=report["loss"],
                classification=report["classification"],
                box_regression=report["box_regression"],
                lr=lr,
                images_per_second=report["images_per_second"],
                data_wait=report["data_wait"],
            )
        )

    def _end_epoch(self, log: MetricLog | None, progress: TrainingProgress) -> None:
        """Evaluate where it is due, and save the detectors and that it is done."""
        epoch = math.ceil(self._step / self._batch_sampler.num_batches)
        is_last = self._step == self._total_steps
        is_due = is_last or epoch % self._config.evaluate_every_epochs == 0
        detector = self._parts.best_weights
        if self._validation.evaluator is not None and is_due:
            self._validation.score(
                detector, self._criterion, log, progress, step=self._step, epoch=epoch
            )
        else:
            self._validation.keep_unscored(detector, self._step)
        self._is_evaluated = True
        self._save(log)

    def _save(self, log: MetricLog | None) -> None:
        """Write the checkpoint; every rank must call it."""
        self._checkpoints.save(log, step=self._step, is_evaluated=self._is_evaluated)

    def _restore(self, point: ResumePoint) -> list[str]:
        """Take over a state; returns what is to be said about it."""
        state = point.state
        self._checkpoints.restore(state, point.path)
        self._step = state.step
        self._is_evaluated = state.is_evaluated
        self._log_position = state.log
        messages = [f"resumed at step {self._step} from {point.path}"]
        if point.passed_over:
            messages.insert(0, f"warning: {point.passed_over}; the state before it is taken")
        return messages
