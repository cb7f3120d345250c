"""A training that was stopped anywhere and resumed is the training that never was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from retina.training.trainer import Trainer
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    log_of,
    stop_after,
)
from tests.faults.stopped_rank import stop_second_rank  # type: ignore[import-not-found]
from tests.processes import run_pair, small_retina  # type: ignore[import-not-found]


@pytest.mark.parametrize(
    "workers", [*(pytest.param(few, marks=pytest.mark.slow) for few in (0, 1)), 2]
)
def test_a_stop_in_mid_epoch_leaves_no_trace(
    workers: int, invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    options = [*EVERYTHING_ON, f"training.num_workers={workers}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = invoke("train", tiny_config, f"output_dir={whole}", *options)
    assert done.code == 0, done.err
    last = log_of(whole)[-1]["step"]
    # Odd steps: between two lines of the log; the one of the two in the second epoch.
    stops = [(3, signal.SIGTERM, 143), (last - 1, signal.SIGUSR1, 138)]
    for step, number, code in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step, number)
            done = invoke("train", tiny_config, f"output_dir={parts}", *options, "--resume")
        assert done.code == code, done.err
        assert f"stopped by signal {int(number)} after step {step}" in done.out
    done = invoke("train", tiny_config, f"output_dir={parts}", *options, "--resume")
    assert done.code == 0, done.err
    assert f"resumed at step {last - 1}" in done.out
    assert_same_training(whole, parts)


def test_an_end_before_the_last_evaluation_leaves_no_trace(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert invoke("train", tiny_config, f"output_dir={whole}").code == 0
    end_epoch = Trainer._end_epoch

    def ending(trainer: Trainer) -> None:
        if trainer.training_run.step == trainer.training_run.total_steps:
            raise KeyboardInterrupt
        end_epoch(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", ending)
        assert invoke("train", tiny_config, f"output_dir={parts}").code == 130
    assert invoke("train", tiny_config, f"output_dir={parts}", "--resume").code == 0
    assert_same_training(whole, parts)


def test_two_processes_resume_exactly(tiny_config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*EVERYTHING_ON, "training.batch_size=4", "training.epochs=2"]
    done = run_pair(small_retina, "train", str(tiny_config), *options, f"output_dir={whole}")
    assert done.returncode == 0, done.stderr
    options += [f"output_dir={parts}", "--resume"]
    done = run_pair(stop_second_rank, 7, "train", str(tiny_config), *options)
    assert done.returncode == 143
    assert "stopped by signal 15 after step 10" in done.stdout  # agreed in every tenth
    assert log_of(whole)[-1]["step"] > 10
    done = run_pair(small_retina, "train", str(tiny_config), *options)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 10" in done.stdout
    assert_same_training(whole, parts)
