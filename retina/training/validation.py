"""Scoring the validation set during training, and what depends on the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from retina.distributed import broadcast_buffers, is_main_process
from retina.errors import RunError
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.modeling.detector import RetinaNet
from retina.objective.criterion import Criterion
from retina.runtime import TorchRuntime
from retina.training.divergence_report import kept_checkpoint
from retina.training.metric_log import MetricLog
from retina.training.progress import TrainingProgress
from retina.training.run_folder import RunFolder
from retina.training.validation_images import validation_pictures


@dataclass(slots=True)
class Validation:
    """Scores the detector, keeps the best one, and counts the evaluations without a gain.

    Attributes:
        evaluator: of the validation set.
        folder: the run folder.
        num_pictures: images shown with truth and predictions.
        best_ap: the best AP so far, or None.
        evaluations_without_gain: since then.
    """

    evaluator: Evaluator | None
    make_runtime: Callable[[RetinaNet], TorchRuntime]
    folder: RunFolder
    num_pictures: int
    best_ap: float | None = None
    evaluations_without_gain: int = 0

    def keep_unscored(self, detector: RetinaNet, step: int) -> None:
        """Save the detector where no evaluation is due."""
        if is_main_process():
            self.folder.save_detector("last", detector, step=step, metrics=None)
            if self.evaluator is None:  # nothing tells a better one
                self.folder.save_detector("best", detector, step=step, metrics=None)

    def score(
        self,
        detector: RetinaNet,
        criterion: Criterion,
        log: MetricLog | None,
        progress: TrainingProgress,
        *,
        step: int,
        epoch: int,
    ) -> None:
        """Evaluate, save the detector, and log; every rank must call it.

        Raises:
            RunError: memory ran out, or a process that loads images failed.
        """
        assert self.evaluator is not None
        started = time.monotonic()
        broadcast_buffers(detector)  # running statistics differ between ranks
        try:
            result = self.evaluator.run_with_losses(self.make_runtime(detector), criterion)
        except RunError as error:
            kept = kept_checkpoint(self.folder.last_state)
            raise RunError(f"while the validation set was evaluated: {error}. {kept}") from None
        assert result.losses is not None
        ap = result.metrics.AP
        is_best = self.best_ap is None or ap > self.best_ap
        self.evaluations_without_gain = 0 if is_best else self.evaluations_without_gain + 1
        if is_main_process():
            self.folder.save_detector("last", detector, step=step, metrics=result.metrics)
            if is_best:
                self.folder.save_detector("best", detector, step=step, metrics=result.metrics)
                self.folder.write_evaluation(result, self.evaluator.dataset.categories)
        if is_best:
            self.best_ap = ap
        if log is not None:
            self._log(log, result, step)
        progress.message(
            f"epoch {epoch}: validation AP {ap:.4f}  AP50 {result.metrics.AP50:.4f}  loss "
            f"{result.losses['loss']:.4f}  ({time.monotonic() - started:.1f} s)"
            f"{'  best so far' if is_best else ''}"
        )

    def _log(self, log: MetricLog, result: EvaluationResult, step: int) -> None:
        assert self.evaluator is not None
        log.scalars("validation", step, {**(result.losses or {}), **result.metrics.numbers()})
        per_class = {
            category.name: category.AP
            for category in result.metrics.per_category
            if category.AP is not None
        }
        log.per_class("validation", step, {"AP": per_class})
        pictures = validation_pictures(self.evaluator.dataset, result, count=self.num_pictures)
        for name, picture in pictures:
            log.picture(f"validation/{name}", picture, step)
        log.flush()
