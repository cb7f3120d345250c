"""A hook: a file that says how far a training is, for who watches it from outside."""

from __future__ import annotations

from retina.distributed import is_main_process
from retina.storage import write_text
from retina.training.run import Hook, TrainingRun


class Heartbeat(Hook):
    """Writes the file ``heartbeat`` before each report, and the share that is done into the log."""

    def flush(self, run: TrainingRun) -> None:
        """Say where the training stands."""
        if is_main_process():
            write_text(run.folder.path / "heartbeat", f"step {run.step} of {run.total_steps}\n")

    def report(self, run: TrainingRun) -> dict[str, float]:
        """The share of the training that is done."""
        return {"done": run.step / run.total_steps}
