"""The launch scripts for clusters, with stand-ins for SLURM's own commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retina.training.checkpoint import load_state
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

SLURM = {
    "srun": 'shift; echo $$ >"$PLACE/step"; exec "$@"',
    "scancel": 'kill -USR1 "$(cat "$PLACE/step")"',
    "scontrol": 'if [ "$1" = show ]; then hostname; else echo "$@" >>"$PLACE/requeued"; fi',
}


def make_commands(folder: Path, commands: dict[str, str]) -> None:
    folder.mkdir()
    for name, body in commands.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)


def environment(place: Path) -> dict[str, str]:
    torchrun = f'exec "{sys.executable}" -m torch.distributed.run "$@"'
    make_commands(place / "bin", {**SLURM, "torchrun": torchrun})
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "PLACE": str(place),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
    }


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("slurm_train.sbatch", "sbatch --nodes=4"),
        ("torchrun_train.sh", "HOST:PORT MACHINES GPUS_PER_MACHINE"),
    ],
)
def test_without_arguments_they_say_how(script: str, words: str) -> None:
    command = ["bash", str(REPOSITORY / "scripts" / script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.slow
def test_before_the_time_is_over_the_job_saves_and_goes_back_into_the_queue(
    tiny_config: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "output"
    command = ["bash", str(REPOSITORY / "scripts/slurm_train.sbatch"), str(tiny_config)]
    command += [f"output_dir={run}", "training.epochs=90", "dataset.validation=null"]
    command += ["model.backbone={kind: resnet, name: resnet18, norm: batch}"]  # what retina has
    with output.open("w") as file:
        job = subprocess.Popen(command, stdout=file, stderr=file, env=environment(tmp_path))
    try:
        deadline = time.monotonic() + 120
        log = run / "metrics.jsonl"
        while not (log.exists() and log.read_text().count("\n") > 3):
            assert job.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)  # as SLURM does, to the script alone
        assert job.wait(180) == 0, output.read_text()
    finally:
        job.kill()
    assert "stopped by signal 10" in output.read_text()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert load_state(run / "checkpoints/last.pt").step % 10 == 0
