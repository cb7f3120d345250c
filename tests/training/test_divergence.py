"""Trainings in which a step is not finite, under each policy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from retina.instruments.replay.file import load_replay
from retina.training.checkpoint import load_state
from retina.training.hooks.divergence import DivergenceState
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.processes import run_pair  # type: ignore[import-not-found]
from tests.training.poison import (  # type: ignore[import-not-found]
    MAGIC,
    poison_trainings,
    poisoned_retina,
)

OPTIONS = [
    "training.max_steps=5",
    "training.checkpoint_every_steps=1",
    "training.average_decay=0.9",
    "dataset.validation=null",
    "schedule={kind: multi_step, drops: [], warm_up: {steps: 0}}",
]


def lines_of(folder: Path, kind: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_stop_names_the_step_and_keeps_the_checkpoint_of_the_step_before(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_trainings(monkeypatch.setattr, {3: 1})
    run = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={run}", *OPTIONS)
    assert done.code == 3
    file = run / "divergence" / "step_000003.pt"
    assert "the loss is not finite at step 3 (classification nan" in done.err
    assert "in fp32 the first output that is not finite is that of backbone.conv1" in done.err
    assert "The step was not applied." in done.err
    assert "optimizer.lr" in done.err
    assert f"retina debug replay {file}" in done.err
    replay = load_replay(file)
    assert (replay.step, replay.rank, replay.precision) == (3, 0, "fp32")
    batch = replay.batches[0]
    assert tuple(batch.images[0, :, 0, 0].tolist()) == MAGIC
    assert ", ".join(map(str, batch.image_ids)) in done.err
    assert f"{int(batch.targets.is_object.sum())} boxes with sides of" in done.err
    state = load_state(run / "checkpoints" / "last.pt")
    assert state.step == 2
    for name, value in state.detector.items():
        assert torch.equal(replay.detector[name], value), name  # as they were before the step


def test_the_replay_file_holds_the_statistics_of_before_the_step(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict on the second step is read in the third, whose forward has moved them."""
    poison_trainings(monkeypatch.setattr, {2: 1})
    run = tmp_path / "run"
    options = ["training.max_steps=4", "training.log_every_steps=50", "dataset.validation=null"]
    loss = "objective.classification={kind: equalized_focal}"
    skip = "training.on_divergence={kind: skip}"
    done = invoke("train", tiny_config, f"output_dir={run}", loss, skip, *options)
    assert done.code == 0, done.err
    replay = load_replay(run / "divergence" / "step_000002.pt")
    assert replay.detector["backbone.bn1.num_batches_tracked"] == 1
    state = load_state(run / "checkpoints" / "last.pt")
    assert state.detector["backbone.bn1.num_batches_tracked"] == 3  # of four steps
    one_step = tmp_path / "one"
    options[0] = "training.max_steps=1"
    assert invoke("train", tiny_config, f"output_dir={one_step}", loss, *options).code == 0
    first = load_state(one_step / "checkpoints" / "last.pt")
    moved = [name for name in first.criterion if "moving_average" not in name]
    assert moved
    for name in moved:
        assert torch.equal(replay.criterion[name], first.criterion[name]), name
    for name in ("running_mean", "running_var"):
        name = f"backbone.bn1.{name}"
        assert torch.equal(replay.detector[name], first.detector[name]), name


def test_skip_goes_on_and_counts_until_there_are_too_many(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_trainings(monkeypatch.setattr, {1: 1, 3: 1})
    run = tmp_path / "run"
    skip = "training.on_divergence={kind: skip, max_skips: 2}"
    done = invoke("train", tiny_config, f"output_dir={run}", *OPTIONS, skip)
    assert done.code == 0, done.err
    assert "The step is left out (skip 1 of 2)" in done.out
    assert "The step is left out (skip 2 of 2)" in done.out
    rows = lines_of(run, "train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss"] is None for row in rows] == [True, False, True, False, False]
    assert [row.get("skipped_steps", 0) for row in rows] == [1, 1, 2, 2, 2]
    assert [row["step"] for row in lines_of(run, "divergence")] == [1, 3]
    state = load_state(run / "checkpoints" / "last.pt")
    assert state.hooks["divergence"] == {"num_skips": 2, "num_rewinds": 0, "lr_factor": 1.0}
    assert all(value.isfinite().all() for value in state.detector.values())
    assert all(value.isfinite().all() for value in state.hooks["average"].values())

    poison_trainings(monkeypatch.setattr, {6: 1})
    more = [*OPTIONS, skip, "training.max_steps=7", "--resume"]
    done = invoke("train", tiny_config, f"output_dir={run}", *more)
    assert done.code == 3
    assert "at step 6" in done.err
    assert "2 steps were left out before it (training.on_divergence.max_skips)" in done.err
    assert load_state(run / "checkpoints" / "last.pt").step == 5


def test_rewind_goes_back_and_on_with_a_lower_rate_also_after_a_resume(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {1: 1, 4: 2}
    poison_trainings(monkeypatch.setattr, steps)
    run = tmp_path / "run"
    rewind = "training.on_divergence={kind: rewind, lr_factor: 0.5, max_rewinds: 3}"
    rate = ["optimizer={kind: sgd, lr: 0.08, reference_batch_size: null}"]
    options = [*OPTIONS, *rate, rewind, "training.checkpoint_every_steps=2"]
    done = invoke("train", tiny_config, f"output_dir={run}", *options)
    assert done.code == 0, done.err
    assert steps == {1: 0, 4: 0}
    assert "Back to step 0 with the learning rate times 0.5 (rewind 1)" in done.out
    assert "Back to step 3 with the learning rate times 0.25 (rewind 2)" in done.out
    assert "Back to step 3 with the learning rate times 0.125 (rewind 3)" in done.out
    rows = lines_of(run, "train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]  # none twice, none missing
    assert [row["lr"] for row in rows] == pytest.approx([0.04, 0.04, 0.04, 0.01, 0.01])
    assert rows[-1]["rewinds"] == 3
    more = [*options, "training.max_steps=6", "--resume"]
    done = invoke("train", tiny_config, f"output_dir={run}", *more)
    assert done.code == 0, done.err
    assert lines_of(run, "train")[-1]["lr"] == pytest.approx(0.01)

    poison_trainings(monkeypatch.setattr, {7: 1})
    more = [*options, "training.epochs=3", "training.max_steps=8", "--resume"]
    done = invoke("train", tiny_config, f"output_dir={run}", *more)
    assert done.code == 3
    assert "gone back 3 times already (training.on_divergence.max_rewinds)" in done.err


@pytest.mark.parametrize(
    "kind",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("stop", "skip")), "rewind"],
)
def test_two_processes_decide_alike_when_one_of_them_sees_a_nan(
    kind: str, tiny_config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["train", str(tiny_config), f"output_dir={run}", *OPTIONS, "device=cpu"]
    launched = run_pair(poisoned_retina, 3, *arguments, f"training.on_divergence.kind={kind}")
    text = launched.stdout + launched.stderr
    file = run / "divergence" / "step_000003_rank1.pt"
    assert [path.name for path in (run / "divergence").iterdir()] == [file.name]
    assert load_replay(file).rank == 1
    assert "rank 1: image ids" in text
    state = load_state(run / "checkpoints" / "last.pt")
    if kind == "stop":
        assert launched.returncode != 0
        assert "failed: the loss is not finite at step 3" in launched.stderr
        assert state.step == 2
        return
    assert launched.returncode == 0, launched.stderr
    assert (state.step, "done: 5 steps" in text) == (5, True)
    expected = {"skip": DivergenceState(1, 0, 1.0), "rewind": DivergenceState(0, 1, 0.5)}[kind]
    assert state.hooks["divergence"] == asdict(expected)
    assert [row["step"] for row in lines_of(run, "train")] == [1, 2, 3, 4, 5]
