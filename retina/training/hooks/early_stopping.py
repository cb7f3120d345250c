"""Ends a training that no longer gets better."""

from __future__ import annotations

from typing import Any, ClassVar

from retina.evaluation.evaluator import EvaluationResult
from retina.training.run import Hook, TrainingRun


class EarlyStopping(Hook):
    """Stops when so many evaluations in a row brought no better validation AP.

    At a high learning rate the AP stands still, or jumps about, and rises when the rate falls.
    So an evaluation counts only once the rate has come down; what is best is the best of all.

    Args:
        limit: so many; None only counts them, so that a limit may be set when a run is resumed.
        counts_from: the first step, from 0, at whose rate an evaluation counts: `settling_step`.
    """

    name: ClassVar[str] = "early_stopping"

    def __init__(self, limit: int | None, *, counts_from: int = 0) -> None:
        self._limit, self._counts_from = limit, counts_from
        self._best: float | None = None
        self._num_without_gain = 0

    def begin(self, run: TrainingRun) -> None:
        """A training that is resumed may have come to its end already."""
        self._check(run)

    def end_epoch(self, run: TrainingRun, result: EvaluationResult | None) -> None:
        """Compare the AP with the best so far, and stop the run where it has long not risen."""
        if result is None or not result.metrics.is_scored:
            return
        is_better = self._best is None or self._best < result.metrics.AP
        counts = not is_better and self._has_settled(run)
        self._num_without_gain = self._num_without_gain + 1 if counts else 0
        if is_better:
            self._best = result.metrics.AP
        self._check(run)

    def _check(self, run: TrainingRun) -> None:
        is_enough = self._limit is not None and self._num_without_gain >= self._limit
        if is_enough and self._has_settled(run):  # it may be resumed with a longer schedule
            run.stop_reason = "early stop: the validation AP no longer rises"

    def _has_settled(self, run: TrainingRun) -> bool:
        return run.step > self._counts_from  # the last step's index is one less

    def state_dict(self) -> dict[str, Any]:
        """The best AP so far, and the evaluations since."""
        return {"best": self._best, "num_without_gain": self._num_without_gain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the best AP and the count of a checkpoint."""
        self._best, self._num_without_gain = state["best"], state["num_without_gain"]
