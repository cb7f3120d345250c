import dataclasses
import errno
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from retina.errors import RunError, UserError
from retina.training.checkpoint import TrainingState, load_state, previous_of, save_state
from retina.training.generators import generator_states, restore_generators
from retina.training.resuming import ResumePoint, changes_since, find_resume_point


def make_state() -> TrainingState:
    return TrainingState(
        config="seed: 0\n",
        dataset="f00d",
        step=7,
        steps_per_epoch=5,
        is_evaluated=True,
        detector={"w": torch.arange(3.0)},
        criterion={},
        optimizer={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]},
        scaler={},
        best_metric=0.5,
        hooks={"anatomy": {"shares": [0.1], "has_warned": False}},
        meter={"losses": torch.zeros(6), "images": 8, "seconds": 0.5, "waited": 0.1},
        log={"metrics.jsonl": 120},
        generators=[generator_states()],
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    save_state(make_state(), path)
    state = load_state(path)
    assert (state.step, state.steps_per_epoch, state.best_metric) == (7, 5, 0.5)
    assert state.is_evaluated
    assert torch.equal(state.detector["w"], torch.arange(3.0))
    assert state.log == {"metrics.jsonl": 120}
    assert list(path.parent.iterdir()) == [path]


def test_the_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    draw()
    save_state(make_state(), tmp_path / "last.pt")
    wanted = draw()
    draw()
    (states,) = load_state(tmp_path / "last.pt").generators
    restore_generators(states)
    assert draw() == wanted


def test_the_state_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for step in (1, 2, 3):
        save_state(dataclasses.replace(make_state(), step=step), path)
    assert (load_state(path).step, load_state(previous_of(path)).step) == (3, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    state = make_state()
    save_state(state, path)
    whole = path.read_bytes()
    start = whole.index(state.detector["w"].numpy().tobytes())
    for offset in range(12):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            load_state(path)


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_damaged_newest_state_gives_way_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    assert find_resume_point(path) is None
    for step in (1, 2):
        save_state(dataclasses.replace(make_state(), step=step), path)
    point = find_resume_point(path)
    assert point is not None
    assert (point.state.step, point.path, point.passed_over) == (2, path, "")
    path.write_bytes(path.read_bytes()[:-100])
    point = find_resume_point(path)
    assert point is not None
    assert (point.state.step, point.path) == (1, previous_of(path))
    assert "last.pt: not a readable training state" in point.passed_over
    # A fault in the next save must not cost the only good state.
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.damaged", "previous.pt"]
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match="the disk is full"):
        save_state(make_state(), path)
    monkeypatch.undo()
    point = find_resume_point(path)
    assert point is not None
    assert (point.state.step, point.passed_over) == (1, "")
    path.write_bytes(b"PK")
    previous_of(path).write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt: .*previous\.pt: the checkpoint is empty"):
        find_resume_point(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed: 1", "seed: 0 → 1 .*other images"),
        ("seed: 0\nmodel: {backbone: {name: resnet50}}", "model.backbone.name: not set → resnet50"),
        ("seed: 0\noptimizer: {kind: sgd}", "optimizer.kind"),
    ],
)
def test_a_config_of_another_training_is_refused(tmp_path: Path, change: str, words: str) -> None:
    point = ResumePoint(make_state(), tmp_path / "last.pt")
    with pytest.raises(UserError, match=words):
        changes_since(point, change)


def test_other_changes_are_told(tmp_path: Path) -> None:
    point = ResumePoint(make_state(), tmp_path / "last.pt")
    text = "seed: 0\noptimizer: {lr: 0.1}\nmodel: {initialize_from: x}\n"
    assert changes_since(point, text) == (
        "optimizer.lr: not set → 0.1",
        "model.initialize_from: not set → x",
    )
    assert changes_since(point, "seed: 0") == ()


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "owned"),))  # type: ignore[return-value]

    path = tmp_path / "last.pt"
    path.write_bytes(pickle.dumps({"config": Evil()}))
    with pytest.raises(UserError, match=r"last\.pt: not a readable training state"):
        load_state(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04 half a file"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt"):
        load_state(path)


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="not a training state of this project"):
        load_state(path)
