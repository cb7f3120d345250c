"""Ends a training that no longer gets better."""

from __future__ import annotations

from typing import Any, ClassVar

from retina.evaluation.evaluator import EvaluationResult
from retina.training.run import Hook, TrainingRun


class EarlyStopping(Hook):
    """Stops when so many evaluations in a row brought no better validation AP.

    Args:
        limit: so many; None only counts them, so that a limit may be set when a run is resumed.
    """

    name: ClassVar[str] = "early_stopping"

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
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
        self._num_without_gain = 0 if is_better else self._num_without_gain + 1
        if is_better:
            self._best = result.metrics.AP
        self._check(run)

    def _check(self, run: TrainingRun) -> None:
        if self._limit is not None and self._num_without_gain >= self._limit:
            run.stop_reason = "early stop: the validation AP no longer rises"

    def state_dict(self) -> dict[str, Any]:
        """The best AP so far, and the evaluations since."""
        return {"best": self._best, "num_without_gain": self._num_without_gain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the best AP and the count of a checkpoint."""
        self._best, self._num_without_gain = state["best"], state["num_without_gain"]
