"""What two run folders of the same training have in common."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retina.training.checkpoint import load_state
from retina.training.trainer import Trainer

CLOCK = {"images_per_second", "data_wait"}
"""What no two runs share."""
_CLOCK_STATE = {".meter.seconds", ".meter.waited"}

EVERYTHING_ON = (
    "training.deterministic=true",
    "training.average_decay=0.9",
    "training.accumulation_steps=2",
    "training.log_every_steps=2",
    "training.anatomy_every_steps=3",
    "augmentation.preset=strong",
    "sampling.repeat_threshold=0.5",
    "objective.normalizer=moving_average",
)
"""The strong augmentation has mosaic and multi-scale."""


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Every line of the log, without what the clock decides."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def board_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of TensorBoard's files."""
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        tag: [(event.step, event.value) for event in board.Scalars(tag)]
        for tag in board.Tags()["scalars"]
        if tag.rpartition("/")[2] not in CLOCK
    }


def flat_state(folder: Path) -> dict[str, Any]:
    """The last training state by dotted names, without config, file lengths and clock."""
    state = load_state(folder / "checkpoints" / "last.pt")
    names = set(type(state).__slots__) - {"config", "log"}
    flat = _flat({name: getattr(state, name) for name in names})
    return {name: value for name, value in flat.items() if name not in _CLOCK_STATE}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(str(key), below) for key, below in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(key), below) for key, below in enumerate(value)]
    else:
        return {path: value}
    return {
        name: leaf for key, below in items for name, leaf in _flat(below, f"{path}.{key}").items()
    }


def assert_same_training(one: Path, other: Path) -> None:
    """Equal to the last bit: state, log, TensorBoard, saved detectors; nothing half-written."""
    ours, theirs = flat_state(one), flat_state(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = (
            torch.equal(value, theirs[name])
            if isinstance(value, torch.Tensor)
            else (value == theirs[name])
        )
        assert same, name
    assert log_of(one) == log_of(other)
    assert board_of(one) == board_of(other)
    for name in ("last.safetensors", "best.safetensors"):
        assert (one / "checkpoints" / name).read_bytes() == (
            other / "checkpoints" / name
        ).read_bytes()
    assert [path.name for path in other.rglob(".*")] == []


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send this process a signal in the middle of a step."""
    advance = Trainer._advance

    def stopping(trainer: Trainer, *arguments: object, **options: object) -> object:
        if trainer.training_run.step == step - 1:
            os.kill(os.getpid(), number)
        return advance(trainer, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_advance", stopping)
