"""Several processes, also on two hosts: one that hangs or dies costs no step that was saved."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Invoke  # type: ignore[import-not-found]

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
TERMS = [
    "device=cpu",
    "model.backbone.norm=frozen",
    "optimizer={kind: sgd, lr: 0.003}",
    # The gradient of L1 jumps where a box is met; rounding alone decides on which side it is.
    "objective.box={kind: smooth_l1, beta: 1.0}",
    "training.batch_size=4",
    "training.evaluate_every_epochs=2",
    "training.checkpoint_every_steps=1",
]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], what: str) -> None:
    """Poll until something holds, for as long as a process lives, at most two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.returncode}"
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.05)


def rows_of(run: Path) -> list[dict[str, float]]:
    """The training steps in the log; a line that is just being written is left out."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if row["kind"] == "train"]


def ranks_of(agent: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started."""
    path = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def end(agent: subprocess.Popen[str]) -> None:
    """Take down torchrun with all that it started."""
    for pid in [*(ranks_of(agent) if agent.poll() is None else []), agent.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait(30)


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(tiny_config: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "output"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc-per-node",
        "2",
        "-m",
        "tests.small_retina",
        "train",
        str(tiny_config),
        *TERMS,
    ]
    command += [
        f"output_dir={run}",
        "training.epochs=50",
        "training.collective_timeout_minutes=0.1",
    ]
    with output.open("w") as file:
        agent = subprocess.Popen(command, stdout=file, stderr=file, text=True, env=ENVIRONMENT)
    try:
        wait_for(lambda: len(rows_of(run)) > 3, agent, "at its third step")
        os.kill(ranks_of(agent)[1], signal.SIGSTOP)
        wait_for(lambda: "lost another one" in output.read_text(), agent, "at giving up")
    finally:
        end(agent)
    message = re.search(r"failed: process 0 of 2 lost another one.*", output.read_text())
    assert message is not None
    assert "within 0.1 minutes (training.collective_timeout_minutes)" in message[0]
    assert "go on with --resume" in message[0]


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them: 10.77.0.1 and 10.77.0.2."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the superuser and the command ip")
    names = f"retina-a-{os.getpid()}", f"retina-b-{os.getpid()}"

    def ip(*arguments: str) -> int:
        done = subprocess.run(["ip", *arguments], capture_output=True, check=False)
        return done.returncode

    if ip("netns", "add", names[0]) != 0:
        pytest.skip("this system does not allow network namespaces")
    try:
        assert ip("netns", "add", names[1]) == 0
        wire = ["link", "add", "wire", "netns", names[0], "type", "veth"]
        assert ip(*wire, "peer", "name", "wire", "netns", names[1]) == 0
        for number, name in enumerate(names, start=1):
            assert ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire") == 0
            assert ip("-n", name, "link", "set", "wire", "up") == 0
            assert ip("-n", name, "link", "set", "lo", "up") == 0
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


@pytest.mark.slow
def test_a_host_that_dies_costs_no_saved_step(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, two_hosts: tuple[str, str]
) -> None:
    """The launch of the documentation: one or two hosts, restarted, always with --resume."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    terms = [*TERMS, "training.epochs=4"]
    assert invoke("train", tiny_config, f"output_dir={alone}", *terms).code == 0
    wanted = rows_of(alone)

    agents = []
    for number, host in enumerate(two_hosts, start=1):
        command = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400"]
        command += ["--rdzv-id", "elastic", "--local-addr", f"10.77.0.{number}"]
        # The host of the rendezvous is told, since its name does not lead to this address.
        command += ["--rdzv-conf", f"is_host={number == 1},last_call_timeout=20"]
        command += [
            "-m",
            "tests.small_retina",
            "train",
            str(tiny_config),
            f"output_dir={run}",
            *terms,
        ]
        command += ["--resume"]
        file = (tmp_path / f"host{number}").open("w")
        agents.append(
            subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                text=True,
                env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "wire"},
            )
        )
    try:
        wait_for(lambda: len(rows_of(run)) >= 8, agents[1], "in the second epoch")
        killed_at = int(rows_of(run)[-1]["step"])
        end(agents[1])
        assert agents[0].wait(240) == 0, (tmp_path / "host1").read_text()
    finally:
        for agent in agents:
            end(agent)
    output = (tmp_path / "host1").read_text()
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", output)]
    assert resumed
    assert resumed[0] >= killed_at - 1  # the step just logged may not have been saved yet
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in wanted], rel=1e-5)
