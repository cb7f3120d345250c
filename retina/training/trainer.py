"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import LoaderConfig
from retina.datasets.planning import BatchPlanner, BatchStream
from retina.devices import Precision
from retina.distributed import (
    barrier,
    broadcast_buffers,
    broadcast_object,
    is_main_process,
    rank,
    world_size,
)
from retina.errors import DivergedError, UserError
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion
from retina.structures import Batch
from retina.training.anatomy import TrainingAnatomy
from retina.training.averaging import WeightAverage
from retina.training.checkpoint import TrainingState, load_state, save_state
from retina.training.config import TrainingConfig
from retina.training.meter import StepMeter
from retina.training.metric_log import MetricLog
from retina.training.optimization import LRFactor, set_learning_rate
from retina.training.parts import TrainedParts
from retina.training.pictures import validation_pictures
from retina.training.progress import StepReport, TrainingProgress
from retina.training.run_folder import RunFolder
from retina.training.step import TrainingStep
from retina.training.stopping import StopRequest


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
        planner: which images make up which batch.
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
        resume: continue from the folder's last checkpoint, if there is one.
        quiet: print nothing.
    """

    def __init__(
        self,
        *,
        detector: RetinaNet,
        criterion: Criterion,
        preprocess: Preprocess,
        dataset: DetectionDataset,
        planner: BatchPlanner,
        loader: LoaderConfig,
        evaluator: Evaluator | None,
        optimizer: torch.optim.Optimizer,
        peak_lr: float,
        lr_factor: LRFactor,
        total_steps: int,
        config: TrainingConfig,
        anatomy: TrainingAnatomy,
        precision: Precision,
        device: torch.device,
        run_config: str,
        folder: RunFolder,
        resume: bool = False,
        quiet: bool = False,
    ) -> None:
        self._criterion = criterion
        self._preprocess = preprocess
        self._dataset = dataset
        self._planner = planner
        self._loader = loader
        self._evaluator = evaluator
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
        self._best_ap: float | None = None
        self._evaluations_without_gain = 0
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
        self._resumed = resume and self._restore()

    @property
    def _last(self) -> Path:
        return self._folder.last_state

    def run(self) -> TrainingOutcome:
        """Train to the end, to a signal, or to the early stop.

        Raises:
            DivergedError: the loss or the weights are not finite.
            RunError: the disk is full. The last checkpoint is intact.
        """
        log = None
        if is_main_process():
            log = MetricLog(self._folder.path, resume_step=self._step)
            log.text("config", self._run_config, self._step)
        progress = TrainingProgress(self._total_steps, first_step=self._step, quiet=self._quiet)
        meter = StepMeter(self._device)
        steps_per_epoch = self._planner.num_batches
        signal: int | None = None
        try:
            with StopRequest() as stop, progress:
                if self._resumed:
                    progress.message(f"resumed at step {self._step} from {self._last}")
                if not self._is_evaluated:
                    self._end_epoch(log, progress)
                if self._is_over:
                    progress.message("the training is already complete")
                    return TrainingOutcome(self._step, self._best_ap, stop.agreed_now(), 0.0)
                for parts in self._batches(meter):
                    self._advance(parts, meter)
                    self._anatomy.report(self._step, log, progress)
                    ends_epoch = (
                        self._step % steps_per_epoch == 0 or self._step == self._total_steps
                    )
                    signal = stop.agreed(self._step)
                    is_saved = ends_epoch or signal is not None or self._is_checkpoint_due()
                    if is_saved or self._step % self._config.log_every_steps == 0:
                        self._report(meter, log, progress)  # refuses to go on with a NaN
                    if is_saved:
                        with meter.paused():
                            self._is_evaluated = not ends_epoch
                            self._save_state()
                    if signal is not None:
                        progress.message(f"stopped by signal {signal} after step {self._step}")
                        break
                    if ends_epoch:
                        with meter.paused():
                            self._end_epoch(log, progress)
                    if self._has_stalled:
                        progress.message("early stop: the validation AP no longer rises")
                        break
                if signal is None:  # the last evaluation takes long enough for one to come
                    signal = stop.agreed_now()
        finally:
            if log is not None:
                log.close()
        return TrainingOutcome(self._step, self._best_ap, signal, meter.training_seconds)

    @property
    def _has_stalled(self) -> bool:
        """Whether so many evaluations without a gain have passed that the training should stop."""
        limit = self._config.early_stopping_evaluations
        return limit is not None and self._evaluations_without_gain >= limit

    @property
    def _is_over(self) -> bool:
        return self._step >= self._total_steps or self._has_stalled

    def _advance(self, parts: list[Batch], meter: StepMeter) -> None:
        """One optimizer step."""
        self._lr = self._peak_lr * self._lr_factor(self._step)
        set_learning_rate(self._optimizer, self._lr)
        losses = self._training_step(
            parts,
            progress=self._step / self._total_steps,
            observer=self._anatomy.observer(self._step + 1),
        )
        meter.add(losses, sum(len(part) for part in parts))
        if self._parts.average is not None:
            self._parts.average.update(self._parts.detector, self._step)
        self._step += 1

    def _batches(self, meter: StepMeter) -> Iterator[list[Batch]]:
        """This rank's share of every global batch that is left, in accumulated parts."""
        parts = self._config.accumulation_steps
        loader = self._loader.build(
            self._dataset,
            BatchStream(
                self._planner,
                first_step=self._step,
                stop_step=self._total_steps,
                rank=rank(),
                world_size=world_size(),
                parts=parts,
            ),
            num_workers=self._config.num_workers,
            size_divisor=self._preprocess.size_divisor,
            pad_to=self._preprocess.pad_to,
            pin_memory=self._device.type == "cuda",
        )
        group: list[Batch] = []
        for batch in meter.timed(iter(loader)):
            group.append(batch)
            if len(group) == parts:
                yield group
                group = []

    def _is_checkpoint_due(self) -> bool:
        every = self._config.checkpoint_every_steps
        return every is not None and self._step % every == 0

    def _report(self, meter: StepMeter, log: MetricLog | None, progress: TrainingProgress) -> None:
        report, lr = meter.flush(), self._lr
        epoch = (self._step - 1) // self._planner.num_batches + 1
        if not math.isfinite(report["loss"]):
            raise DivergedError(
                f"the loss is not finite at step {self._step} (classification "
                f"{report['classification']}, box regression {report['box_regression']}); lower "
                f"optimizer.lr (now {lr:.2e}), set training.clip_norm, or use "
                f"training.precision=fp32. The last checkpoint is intact: {self._last}"
            )
        if log is not None:
            doubts = self._criterion.doubts()
            log.scalars("train", self._step, {**report, **doubts, "lr": lr, "epoch": epoch})
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
        epoch = math.ceil(self._step / self._planner.num_batches)
        is_last = self._step == self._total_steps
        is_due = is_last or epoch % self._config.evaluate_every_epochs == 0
        if self._evaluator is not None and is_due:
            self._evaluate(self._evaluator, epoch, log, progress)
        else:
            self._save_detector("last", None)
            if self._evaluator is None:  # nothing tells a better one
                self._save_detector("best", None)
        self._is_evaluated = True
        self._save_state()

    def _evaluate(
        self, evaluator: Evaluator, epoch: int, log: MetricLog | None, progress: TrainingProgress
    ) -> None:
        started = time.monotonic()
        detector = self._parts.best_weights
        broadcast_buffers(detector)  # running statistics differ between ranks
        result = evaluator.run(detector, criterion=self._criterion)
        assert result.losses is not None
        ap = result.metrics.AP
        is_best = self._best_ap is None or ap > self._best_ap
        self._evaluations_without_gain = 0 if is_best else self._evaluations_without_gain + 1
        self._save_detector("last", result)
        if is_best:
            self._best_ap = ap
            self._save_detector("best", result)
        if log is not None:
            self._log_evaluation(log, result, evaluator.dataset)
            if is_best:
                self._folder.write_evaluation(result, evaluator.dataset.categories)
        progress.message(
            f"epoch {epoch}: validation AP {ap:.4f}  AP50 {result.metrics.AP50:.4f}  loss "
            f"{result.losses['loss']:.4f}  ({time.monotonic() - started:.1f} s)"
            f"{'  best so far' if is_best else ''}"
        )

    def _log_evaluation(
        self, log: MetricLog, result: EvaluationResult, dataset: DetectionDataset
    ) -> None:
        losses = result.losses or {}
        log.scalars("validation", self._step, {**losses, **result.metrics.numbers()})
        per_class = {
            category.name: category.AP
            for category in result.metrics.per_category
            if category.AP is not None
        }
        log.per_class("validation", self._step, {"AP": per_class})
        for name, picture in validation_pictures(dataset, result, count=self._config.pictures):
            log.picture(f"validation/{name}", picture, self._step)
        log.flush()

    def _save_detector(
        self, name: Literal["last", "best"], result: EvaluationResult | None
    ) -> None:
        if is_main_process():
            self._folder.save_detector(
                name,
                self._parts.best_weights,
                step=self._step,
                metrics=None if result is None else result.metrics,
            )

    def _save_state(self) -> None:
        if not self._parts.are_finite():
            raise DivergedError(
                f"the weights are not finite after step {self._step}; lower optimizer.lr, set "
                "training.clip_norm, or use training.precision=fp32. The last checkpoint is "
                f"intact: {self._last}"
            )
        if is_main_process():
            state = TrainingState(
                config=self._run_config,
                step=self._step,
                steps_per_epoch=self._planner.num_batches,
                is_evaluated=self._is_evaluated,
                best_metric=self._best_ap,
                epochs_without_gain=self._evaluations_without_gain,
                rng_state=torch.get_rng_state(),
                **self._parts.state_dicts(),
            )
            save_state(state, self._last)
        barrier()

    def _restore(self) -> bool:
        """Take over the last checkpoint; False where there is none yet."""
        if not broadcast_object(self._last.exists()):
            return False
        state = load_state(self._last)
        if state.steps_per_epoch != self._planner.num_batches:
            raise UserError(
                f"{self._last}: an epoch of that run had {state.steps_per_epoch} steps, here it "
                f"has {self._planner.num_batches} (other data or batch size?). Resume with the "
                "run's own config.yaml, or give another output_dir"
            )
        self._parts.restore(state, self._last)
        torch.set_rng_state(state.rng_state)
        self._step = state.step
        self._is_evaluated = state.is_evaluated
        self._best_ap = state.best_metric
        self._evaluations_without_gain = state.epochs_without_gain
        return True
