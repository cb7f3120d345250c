"""What a resumed training goes on from, and which changes of its config are refused."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from retina.errors import RunError, UserError
from retina.training.checkpoint import previous_of, save_state
from retina.training.resuming import (
    REFUSED,
    SWITCHES,
    ResumePoint,
    changes_since,
    find_resume_point,
)
from tests.training.states import make_state  # type: ignore[import-not-found]


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


def point_of(config: str) -> ResumePoint:
    return ResumePoint(dataclasses.replace(make_state(), config=config), Path("run/last.pt"))


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("seed: 0", "seed: 1", "seed: 0 → 1 .*other images"),
        (
            "model: {backbone: {name: resnet18}}",
            "model: {backbone: {name: resnet50}}",
            "model.backbone.name: resnet18 → resnet50 .*another meaning",
        ),
        ("seed: 0", "optimizer: {kind: sgd}", "optimizer.kind"),
        ("preprocess: {min_size: 64}", "preprocess: {min_size: 96}", "trained on other inputs"),
        ("sampling: {drop_last: false}", "sampling: {drop_last: true}", "other images"),
        ("training: {batch_size: 8}", "training: {batch_size: 16}", "8 → 16 .*other images"),
    ],
)
def test_a_config_of_another_training_is_refused(before: str, now: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        changes_since(point_of(before), now)
    message = str(caught.value)
    assert message.startswith("run/last.pt: cannot be resumed with this config: ")
    assert message.endswith("model.initialize_from=run/last.safetensors")
    assert "\n" not in message


def test_every_refused_key_has_a_reason() -> None:
    assert set(REFUSED) == {
        *("model", "optimizer.kind", "preprocess", "seed", "sampling", "training.batch_size"),
    }
    for key, reason in REFUSED.items():
        tree = "old"
        for part in reversed(key.split(".")):
            tree = f"{{{part}: {tree}}}"
        with pytest.raises(UserError, match=f"{key}: old → new .{reason}"):
            changes_since(point_of(tree), tree.replace("old", "new"))


def test_all_that_is_refused_is_told_at_once() -> None:
    with pytest.raises(UserError, match=r"model\.pyramid: 1 → 2 .*; seed: 0 → 1 ") as caught:
        changes_since(
            point_of("{model: {pyramid: 1}, seed: 0, device: cpu}"),
            "{model: {pyramid: 2}, seed: 1, device: cuda}",
        )
    assert "device" not in str(caught.value)


@pytest.mark.parametrize(("before", "now"), [("null", "0.9"), ("0.9", "null")])
def test_the_average_is_neither_begun_nor_lost_midway(before: str, now: str) -> None:
    assert set(SWITCHES) == {"training.average_decay"}
    with pytest.raises(UserError, match=r"average_decay: .* would begin, or be lost, midway"):
        changes_since(
            point_of(f"training: {{average_decay: {before}}}"),
            f"training: {{average_decay: {now}}}",
        )


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        ("training: {average_decay: 0.9}", "training: {average_decay: 0.99}", "0.9 → 0.99"),
        ("optimizer: {lr: 0.1}", "optimizer: {lr: 0.2}", "optimizer.lr: 0.1 → 0.2"),
        ("model: {initialize_from: null}", "model: {initialize_from: a}", "initialize_from"),
        ("model: {backbone: {weights: a}}", "model: {backbone: {weights: null}}", "weights: a →"),
        ("models: 1", "models: 2", "models: 1 → 2"),  # only begins like a refused key
        ("training: {batch_sizes: 1}", "training: {batch_sizes: 2}", "batch_sizes: 1 → 2"),
    ],
)
def test_a_change_that_leaves_it_the_same_training_is_told(
    before: str, now: str, line: str
) -> None:
    (told,) = changes_since(point_of(before), now)
    assert line in told


def test_other_changes_are_told(tmp_path: Path) -> None:
    point = ResumePoint(make_state(), tmp_path / "last.pt")
    text = "seed: 0\noptimizer: {lr: 0.1}\nmodel: {initialize_from: x}\n"
    assert changes_since(point, text) == (
        "optimizer.lr: not set → 0.1",
        "model.initialize_from: not set → x",
    )
    assert changes_since(point, "seed: 0") == ()
