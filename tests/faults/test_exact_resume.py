"""A training that was stopped anywhere and resumed is the training that never was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    log_of,
    stop_after,
)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow), 2])
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


def launch(config: Path, output: Path, *options: str, stop_at: int = 0) -> int:
    """Train with two processes; the second gets SIGTERM in this step."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(REPOSITORY / "tests/faults/stopped_rank.py")]
    command += [str(stop_at), "train", str(config), *options]
    with output.open("a") as file:
        return subprocess.run(
            command,
            stdout=file,
            stderr=file,
            timeout=300,
            check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        ).returncode


def test_two_processes_resume_exactly(tiny_config: Path, tmp_path: Path) -> None:
    whole, parts, output = tmp_path / "whole", tmp_path / "parts", tmp_path / "output"
    options = [*EVERYTHING_ON, "training.batch_size=4", "training.epochs=2"]
    assert launch(tiny_config, output, *options, f"output_dir={whole}") == 0, output.read_text()
    options += [f"output_dir={parts}", "--resume"]
    assert launch(tiny_config, output, *options, stop_at=7) != 0
    assert "stopped by signal 15 after step 10" in output.read_text()  # agreed in every tenth
    assert log_of(whole)[-1]["step"] > 10
    assert launch(tiny_config, output, *options) == 0, output.read_text()
    assert "resumed at step 10" in output.read_text()
    assert_same_training(whole, parts)
