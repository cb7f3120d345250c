"""Looks into a step that was not finite, and leaves a file to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from retina.configuration import to_yaml
from retina.devices import Precision
from retina.distributed import rank
from retina.errors import RunError, UserError
from retina.experiment.setup import TrainingSetup
from retina.instruments.replay.file import ReplayFile, batch_fields, on_host, save_replay
from retina.instruments.replay.layer_check import (
    LayerCheck,
    check_layers,
    describe_checks,
    fix_of_checks,
)
from retina.structures import Batch
from retina.training.forward import ForwardPass
from retina.training.run import FailedStep, Hook, StepDiagnosis, TrainingRun

MAX_REPLAY_FILES = 5
"""Of a process from its start to its end: each holds the weights of the detector."""


def make_hook(training: TrainingSetup) -> ReplayHook:
    """The hook of a training."""
    return ReplayHook(training)


class ReplayHook(Hook):
    """Runs a failed step again, layer by layer, and writes replay files to ``divergence/``."""

    def __init__(self, training: TrainingSetup) -> None:
        self._training = training
        self._num_files = 0

    def diagnose(self, run: TrainingRun, failed: FailedStep) -> StepDiagnosis:
        """Run the step in the training's precision, then in fp32; less where memory runs out."""
        checks = run_again(self._training.forward, failed.micro_batches)
        return StepDiagnosis(
            is_finite=all(check.is_finite for check in checks),
            where=describe_checks(checks),
            fix=fix_of_checks(checks),
            keep=lambda: self._keep(run.folder.path / "divergence", failed),
        )

    def _keep(self, folder: Path, failed: FailedStep) -> str:
        """Write the replay file; returns what to do with it, or why there is none."""
        if self._num_files == MAX_REPLAY_FILES:
            return f"no replay file was written, there are {MAX_REPLAY_FILES} already"
        own = f"_rank{rank()}" if rank() else ""
        path = folder / f"step_{failed.step:06d}{own}.pt"
        training, forward = self._training, self._training.forward
        replay = ReplayFile(
            config=to_yaml(training.config),
            class_names=training.train.categories.names,
            class_counts=tuple(map(int, training.train.class_counts())),
            step=failed.step,
            rank=rank(),
            precision=forward.precision,
            lr=failed.lr,
            micro_batches=batch_fields(failed.micro_batches),
            detector={name: on_host(v) for name, v in forward.detector.state_dict().items()},
            criterion={name: on_host(v) for name, v in forward.criterion.state_dict().items()},
        )
        try:
            save_replay(replay, path)
        except (UserError, RunError) as error:  # a full disk is no reason to end the training
            return f"no replay file was written: {error}"
        self._num_files += 1
        return f"look into it with: retina debug replay {path}"


def run_again(forward: ForwardPass, micro_batches: Sequence[Batch]) -> tuple[LayerCheck, ...]:
    """The step in the training's precision, then in fp32; fewer where memory runs out."""
    checks: list[LayerCheck] = []
    precisions: tuple[Precision, ...] = (forward.precision, "fp32")
    with suppress(MemoryError, RuntimeError):
        for precision in dict.fromkeys(precisions):
            checks.append(check_layers(replace(forward, precision=precision), micro_batches))
    return tuple(checks)
