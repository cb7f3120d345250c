"""Fixtures for every test."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

# The networks of the tests are tiny: one thread is fastest, and leaves the cores to whoever else
# uses the machine. Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]

SMALL_RETINA = (sys.executable, "-m", "tests.small_retina")
"""Starts the command line as a user does, with the backbone of `tiny_config`."""

RunRetina = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Done:
    """How a command of this process ended."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Done]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command line in this process, which spares its start."""
    from retina.__main__ import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["retina", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets that may stand beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def run_retina() -> RunRetina:
    """Runs the command line in a process of its own."""
    from tests.processes import Launched, small_retina  # type: ignore[import-not-found]

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        launched = Launched(
            small_retina, *map(str, arguments), environment={"COLUMNS": "120"}, cwd=cwd
        )
        done: subprocess.CompletedProcess[str] = launched.complete()
        return done

    return run


@pytest.fixture(scope="session")
def synthetic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set: 24 training and 8 validation images."""
    from retina.datasets.synthetic import generate_dataset

    folder = tmp_path_factory.mktemp("synthetic") / "data"
    generate_dataset(folder, num_images=24, num_validation_images=8, seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_config(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The config of a training that takes a second; it names no output_dir."""
    from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(f"""
extends: {REPOSITORY / "configs" / "nano.yaml"}
device: cpu
dataset:
  train:
    images: {synthetic_data / "train" / "images"}
    annotations: {synthetic_data / "train" / "annotations.json"}
  validation:
    images: {synthetic_data / "validation" / "images"}
    annotations: {synthetic_data / "validation" / "annotations.json"}
model:
  backbone: {{kind: small, norm: batch}}
  pyramid: {{channels: 16}}
  head: {{num_convs: 1, num_groups: 4}}
preprocess: {{min_size: 64, max_size: 96}}
postprocess: {{score_threshold: 0.001}}
training: {{epochs: 2, batch_size: 8, num_workers: 0, precision: fp32, log_every_steps: 1,
           pictures: 1}}
evaluation: {{report: false}} # takes longer than the training; tests/experiment/test_reporting.py
""")
    with small_backbone_listed():
        yield path


@pytest.fixture(scope="session")
def torchvision_reference() -> ModuleType:
    """The module `tests/modeling/torchvision_reference.py`."""
    name = "torchvision_reference"
    if name not in sys.modules:
        path = REPOSITORY / "tests" / "modeling" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
