"""Running out of memory ends a training with one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retina.datasets.loading import collate
from retina.devices import is_out_of_memory
from retina.errors import DivergedError, RunError
from retina.training.checkpoint import load_state
from retina.training.memory import naming_the_batch
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]
from tests.training.test_step import make_samples  # type: ignore[import-not-found]

STARVED = """
import resource
from pathlib import Path
from typing import Any

from retina.__main__ import main
from retina.training.step import TrainingStep

call = TrainingStep.__call__
calls = []


def starved(step: TrainingStep, *arguments: Any, **options: Any) -> Any:
    calls.append(1)
    if len(calls) == 2:  # the second step may have 32 MB more than there is
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (32 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return call(step, *arguments, **options)


TrainingStep.__call__ = starved
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_training_that_gets_no_more_memory_names_shape_and_remedies(
    tiny_config: Path, tmp_path: Path
) -> None:
    run, script = tmp_path / "run", tmp_path / "starved.py"
    script.write_text(STARVED)
    done = subprocess.run(
        [
            *(sys.executable, str(script), "train", str(tiny_config), f"output_dir={run}"),
            *("training.checkpoint_every_steps=1", "training.max_steps=3"),
            *("preprocess.min_size=256", "preprocess.max_size=384", "dataset.validation=null"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    assert line.startswith("failed: out of memory on cpu at step 2, with a batch of 8 × 3 × ")
    for word in ("boxes (at most", "training.batch_size", "training.accumulation_steps"):
        assert word in line
    assert f"The last checkpoint is intact: {run / 'checkpoints' / 'last.pt'}" in line
    assert load_state(run / "checkpoints" / "last.pt").step == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_every_way_of_saying_so_is_understood(error: Exception, tmp_path: Path) -> None:
    assert is_out_of_memory(error)
    parts = [collate(make_samples([2, 5])), collate(make_samples([1]))]
    with (
        pytest.raises(
            RunError,
            match=r"2 accumulated batches of up to 2 × 3 × 64 × 96 and 8 boxes.*no checkpoint yet",
        ),
        naming_the_batch(
            parts, step=4, device=torch.device("cpu"), checkpoint=tmp_path / "last.pt"
        ),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), DivergedError("out of memory")])
def test_other_errors_pass(error: Exception) -> None:
    parts = [collate(make_samples([1]))]
    with (
        pytest.raises(type(error), match=str(error)),
        naming_the_batch(parts, step=4, device=torch.device("cpu"), checkpoint=Path("last.pt")),
    ):
        raise error
