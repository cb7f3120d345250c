"""Scoring the validation set during training, and keeping the best detector."""

from __future__ import annotations

import time
from dataclasses import dataclass

from retina.distributed import broadcast_buffers, is_main_process
from retina.errors import RunError
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.objective.criterion import Criterion
from retina.runtime import TorchRuntime
from retina.training.run import TrainingRun
from retina.training.run_folder import kept_checkpoint


@dataclass(slots=True)
class Validation:
    """Scores the detector and keeps the best one.

    Attributes:
        evaluator: of the validation set; None trains without.
        runtime: runs the detector that is scored and saved.
        criterion: for the losses on the split.
        best_ap: the best AP so far, or None.
    """

    evaluator: Evaluator | None
    runtime: TorchRuntime
    criterion: Criterion
    best_ap: float | None = None

    def end_epoch(self, run: TrainingRun, *, is_due: bool) -> EvaluationResult | None:
        """Evaluate where it is due, and save the detectors; every rank must call it.

        Raises:
            RunError: memory ran out, or a process that loads images failed.
        """
        if self.evaluator is None or not is_due:
            self._keep_unscored(run)
            return None
        started = time.monotonic()
        result = self._score(run, self.evaluator)
        ap = result.metrics.AP
        is_best = self.best_ap is None or ap > self.best_ap
        if is_main_process():
            run.folder.save_detector("last", run.evaluated, step=run.step, metrics=result.metrics)
            if is_best:
                run.folder.save_detector(
                    "best", run.evaluated, step=run.step, metrics=result.metrics
                )
                run.folder.write_evaluation(result, self.evaluator.dataset.categories)
        if is_best:
            self.best_ap = ap
        losses = result.losses or {}
        _log(run, result)
        run.progress.message(
            f"epoch {run.epoch}: validation AP {ap:.4f}  AP50 {result.metrics.AP50:.4f}  loss "
            f"{losses['loss']:.4f}  ({time.monotonic() - started:.1f} s)"
            f"{'  best so far' if is_best else ''}"
        )
        return result

    def _keep_unscored(self, run: TrainingRun) -> None:
        if is_main_process():
            run.folder.save_detector("last", run.evaluated, step=run.step, metrics=None)
            if self.evaluator is None:  # nothing tells a better one
                run.folder.save_detector("best", run.evaluated, step=run.step, metrics=None)

    def _score(self, run: TrainingRun, evaluator: Evaluator) -> EvaluationResult:
        broadcast_buffers(run.evaluated)  # running statistics differ between ranks
        try:
            return evaluator.run_with_losses(self.runtime, self.criterion)
        except RunError as error:
            kept = kept_checkpoint(run.folder.last_state)
            raise RunError(f"while the validation set was evaluated: {error}. {kept}") from None


def _log(run: TrainingRun, result: EvaluationResult) -> None:
    run.log.scalars("validation", run.step, {**(result.losses or {}), **result.metrics.numbers()})
    per_class = {
        category.name: category.AP
        for category in result.metrics.per_category
        if category.AP is not None
    }
    run.log.per_class("validation", run.step, {"AP": per_class})
    run.log.flush()
