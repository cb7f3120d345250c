"""The state of a training on disk: everything that `--resume` needs to go on."""

from __future__ import annotations

import io
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retina.errors import UserError
from retina.modeling.torch_files import load_plain
from retina.storage import bring_to_disk, replacing

FORMAT_VERSION = 4


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a training is made of, besides its data.

    Attributes:
        config: the resolved config as YAML.
        dataset: the fingerprint of the training set, since the position in the epoch is one in it.
        pretrained: where the weights are from that the training began with, or None; their file
            may lie elsewhere when it goes on.
        step: optimizer steps done.
        steps_per_epoch: of the batch sampler that the steps were counted in.
        is_evaluated: False where the evaluation at the end of an epoch is still due.
        detector, criterion, optimizer, scaler: state dicts.
        best_metric: the best validation AP so far, or None.
        hooks: the state of each hook that has one, by its name.
        meter: the sums of the losses since the last line of the log.
        log: the length of each log file in bytes, by its path in the run folder.
        generators: the states of the random number generators of each rank.
        format_version: of this layout.
    """

    config: str
    dataset: str
    pretrained: dict[str, Any] | None
    step: int
    steps_per_epoch: int
    is_evaluated: bool
    detector: dict[str, Any]
    criterion: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    best_metric: float | None
    hooks: dict[str, dict[str, Any]]
    meter: dict[str, Any]
    log: dict[str, int]
    generators: list[dict[str, Any]]
    format_version: int = FORMAT_VERSION


def previous_of(path: Path) -> Path:
    """Where `save_state` keeps the state that it replaces."""
    return path.with_name(f"previous{path.suffix}")


def save_state(state: TrainingState, path: Path) -> None:
    """Write the file in one step and keep the one before; see `retina.storage.replacing`.

    At every moment ``path`` is a whole state, or, at the very first, missing.
    """
    content = io.BytesIO()
    torch.save({name: getattr(state, name) for name in TrainingState.__slots__}, content)
    with replacing(path) as aside:
        aside.write_bytes(content.getbuffer())
        bring_to_disk(aside)  # before the older state is touched
        if path.exists():
            _keep(path, previous_of(path))


def _keep(path: Path, previous: Path) -> None:
    """Give the file a second name, which costs no space; copy it where a disk has no links."""
    with replacing(previous) as aside:
        aside.unlink()
        try:
            os.link(path, aside)
        except OSError:
            aside.write_bytes(path.read_bytes())


def load_state(path: Path) -> TrainingState:
    """Read a training state without executing anything in it.

    Raises:
        UserError: the file is empty, damaged, or no training state of this project.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); every machine needs the run folder"
        ) from None
    if not content:
        raise UserError(f"{path}: the checkpoint is empty (0 bytes); remove it to start anew")
    try:
        fields = load_plain(content)
    except ValueError as error:
        raise UserError(f"{path}: not a readable training state: {error}") from None
    if not isinstance(fields, dict) or "format_version" not in fields:
        raise UserError(f"{path}: not a training state of this project")
    version = fields["format_version"]
    if not isinstance(version, int) or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: was written by another version of retina (format {str(version)[:20]}, this "
            f"one reads {FORMAT_VERSION}); start anew, or take its weights with "
            f"model.initialize_from={path.with_name('last.safetensors')}"
        )
    if set(fields) != set(TrainingState.__slots__):
        raise UserError(f"{path}: not a training state of this project")
    for name, kind in typing.get_type_hints(TrainingState).items():
        if not isinstance(fields[name], _plain(kind)):
            raise UserError(
                f"{path}: not a training state of this project: its {name} is of the type "
                f"{type(fields[name]).__name__}"
            )
    return TrainingState(**fields)


def _plain(kind: Any) -> Any:
    """What ``isinstance`` can ask for: ``dict[str, Any] | None`` becomes ``dict | None``."""
    members = [typing.get_origin(one) or one for one in typing.get_args(kind)]
    is_union = isinstance(kind, types.UnionType)
    return tuple(members) if is_union else typing.get_origin(kind) or kind
