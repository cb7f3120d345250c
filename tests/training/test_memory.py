"""Running out of memory ends a training with one message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from retina.datasets.loading import collate
from retina.devices import is_out_of_memory
from retina.errors import DivergedError, RunError
from retina.modeling.postprocess import Postprocess
from retina.modeling.preprocess import PreprocessConfig
from retina.training.checkpoint import load_state
from retina.training.memory import naming_the_batch
from retina.training.step import TrainingStep
from tests.conftest import Done, Invoke  # type: ignore[import-not-found]
from tests.processes import Launched, small_retina  # type: ignore[import-not-found]
from tests.training.test_step import make_samples  # type: ignore[import-not-found]


def starved_retina(*arguments: str) -> None:
    """``retina`` whose second step may have 32 MB more than there is."""
    import resource  # which Windows does not have

    call = TrainingStep.__call__
    calls = []

    def starved(step: TrainingStep, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (32 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return call(step, *arguments, **options)

    TrainingStep.__call__ = starved  # type: ignore[method-assign]
    small_retina(*arguments)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_training_that_gets_no_more_memory_names_shape_and_remedies(
    tiny_config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = Launched(
        starved_retina,
        *("train", str(tiny_config), f"output_dir={run}"),
        *("training.checkpoint_every_steps=1", "training.max_steps=3"),
        *("preprocess.min_size=256", "preprocess.max_size=384", "dataset.validation=null"),
    ).complete()
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
        RuntimeError("could not create a primitive"),
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


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        DivergedError("out of memory"),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    parts = [collate(make_samples([1]))]
    with (
        pytest.raises(type(error), match=str(error)),
        naming_the_batch(parts, step=4, device=torch.device("cpu"), checkpoint=Path("last.pt")),
    ):
        raise error


def starve(patch: pytest.MonkeyPatch) -> None:
    """What turns predictions into detections, which no training step does, gets no memory."""

    def starved(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    patch.setattr(Postprocess, "__call__", starved)


def failure(done: Done) -> str:
    assert done.code == 3, done.err
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("failed:")]
    return str(line)


def test_out_of_memory_in_a_validation_names_its_batch_and_keeps_the_checkpoint(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    starve(monkeypatch)
    options = ["training.max_steps=1", "evaluation.batch_size=3"]
    line = failure(invoke("train", tiny_config, f"output_dir={run}", *options))
    assert (
        "while the validation set was evaluated: out of memory on cpu, with a batch of 3 × 3 × "
        in line
    )
    assert "; lower evaluation.batch_size, or preprocess.min_size and max_size. The last" in line
    last = run / "checkpoints" / "last.pt"
    assert line.endswith(f"The last checkpoint is intact: {last}")
    state = load_state(last)
    assert (state.step, state.is_evaluated) == (1, False)
    monkeypatch.undo()
    assert invoke("train", run / "config.yaml", "--resume").code == 0
    assert load_state(last).is_evaluated


def test_out_of_memory_in_evaluate_and_predict_names_their_batch(
    invoke: Invoke,
    tiny_config: Path,
    synthetic_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, split = tmp_path / "run", synthetic_data / "validation"
    options = ["training.max_steps=1", "dataset.validation=null"]
    assert invoke("train", tiny_config, f"output_dir={run}", *options).code == 0
    detector = run / "checkpoints" / "last.safetensors"
    starve(monkeypatch)
    device = ["--device", "cpu", "--batch-size", "2"]
    data = ["--images", split / "images", "--annotations", split / "annotations.json"]
    line = failure(invoke("evaluate", detector, *data, *device))
    assert "failed: out of memory on cpu, with a batch of 2 × 3 × " in line
    assert "(the largest image is " in line
    assert line.endswith("; lower the batch size (--batch-size)")
    output = ["--output", tmp_path / "out"]
    line = failure(invoke("predict", detector, split / "images", *output, *device))
    assert "failed: out of memory on cpu, with a batch of 2 × 3 × " in line
    assert "lower the batch size (--batch-size)" in line
    assert "training." not in line


def test_the_named_shape_is_that_of_the_networks_input() -> None:
    preprocess = PreprocessConfig(min_size=64, max_size=96).build()
    images = [
        torch.zeros(3, 128, 256, dtype=torch.uint8),
        torch.zeros(3, 99, 30, dtype=torch.uint8),
    ]
    sizes = [(128, 256), (99, 30)]
    prepared = preprocess.prepare(images)
    assert preprocess.input_shape(sizes) == tuple(prepared.images.shape)
