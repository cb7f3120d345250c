"""`scripts/gpu_check.sh` without a GPU: that every check ends in the report, however it ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

WORKER = """
import json, os, sys, time

def result(name, status):
    print(json.dumps({"name": name, "status": status, "seconds": 0.1, "detail": ""}), flush=True)

for name in json.load(open(sys.argv[1])):
    print(json.dumps({"begins": name}), flush=True)
    if name == "hangs":
        time.sleep(60)
    if name == "crashes":
        os.abort()
    result(name, "failed" if "fails" in name else "passed")
    if name == "fails and breaks the device":
        sys.exit()
"""


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", REPOSITORY / "scripts/gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "scripts" / "gpu_check.sh"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
    )


def test_no_check_keeps_another_from_running(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(
        gpu_check,
        "worker_command",
        lambda arguments, listing: [sys.executable, str(worker), str(listing)],
    )
    expected = {
        "one": "passed",
        "hangs": "failed",
        "two": "passed",
        "fails": "failed",
        "crashes": "failed",
        "fails and breaks the device": "failed",
        "three": "passed",
        "fails and breaks the device, the last one": "failed",
    }
    limits = {name: 1.0 if name == "hangs" else 30.0 for name in expected}
    results = gpu_check.run_processes(Namespace(output=tmp_path, cpu=True), limits)
    assert {result.name: result.status for result in results} == expected
    assert [result.name for result in results] == list(expected)
    details = {result.name: result.detail for result in results}
    assert "no end after 1 s" in details["hangs"]
    assert "its process crashed" in details["crashes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run_script("--output", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr == "error: torch sees no GPU here; --cpu tries out what can run without\n"
    assert not (tmp_path / "out").exists()


def test_a_wrong_data_folder_is_named(tmp_path: Path) -> None:
    done = run_script("--data", tmp_path, "--cpu")
    assert done.returncode == 2
    assert f"{tmp_path} has no folder JPEGImages" in done.stderr


@pytest.mark.slow
def test_a_name_that_no_check_has_is_an_error(tmp_path: Path) -> None:
    done = run_script("--cpu", "--only", "zzzz", "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no check has 'zzzz' in its name\n"


@pytest.mark.slow
def test_what_can_run_on_a_cpu_passes(tmp_path: Path) -> None:
    done = run_script("--cpu", "--output", tmp_path)
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    failed = [check for check in report["checks"] if check["status"] == "failed"]
    assert not failed, failed
    assert done.returncode == 0, done.stderr
    passed = {check["name"] for check in report["checks"] if check["status"] == "passed"}
    for part in ("Triton", "NaN guard: bf16", "exact resume", "divergence", "train", "SIGTERM"):
        assert any(part in name for name in passed), part
    assert report["machine"]["device"].startswith("cpu (a trial of the checks")
    assert report["passed"] + report["skipped"] == len(report["checks"])
