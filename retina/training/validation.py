"""Scoring the validation set during training, and keeping the best detector."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial

from retina.distributed import broadcast_buffers, is_main_process
from retina.errors import RunError
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.evaluation.thresholds import thresholds_of_training
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
        metrics = result.metrics if result.metrics.is_scored else None
        is_best = metrics is not None and (self.best_ap is None or self.best_ap < metrics.AP)
        if is_main_process():
            save = partial(
                run.folder.save_detector,
                detector=run.evaluated,
                step=run.step,
                metrics=metrics,
                thresholds=None
                if result.problem is None
                else thresholds_of_training(result.problem, self.evaluator.dataset.categories),
            )
            save("last")
            if is_best or self.best_ap is None:  # without a score, nothing tells a better one
                save("best")
                run.folder.write_evaluation(result, self.evaluator.dataset)
        if metrics is not None and is_best:
            self.best_ap = metrics.AP
        losses = result.losses or {}
        _log(run, result)
        score = (
            "nothing could be scored, the validation set has no annotated object"
            if metrics is None
            else f"validation AP {metrics.AP:.4f}  AP50 {metrics.AP50:.4f}"
        )
        run.progress.message(
            f"epoch {run.epoch}: {score}  loss {losses['loss']:.4f}  "
            f"({time.monotonic() - started:.1f} s)"
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
    # pycocotools' -1 says that there was nothing to score, and is no value to draw or to compare.
    numbers = {
        name: value if value >= 0 else math.nan for name, value in result.metrics.numbers().items()
    }
    run.log.scalars("validation", run.step, {**(result.losses or {}), **numbers})
    per_class = {
        category.name: category.AP
        for category in result.metrics.per_category
        if category.AP is not None
    }
    run.log.per_class("validation", run.step, {"AP": per_class})
    run.log.flush()
