"""The state of a training on disk: everything that `--resume` needs to go on."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retina.errors import UserError
from retina.storage import replacing

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a training is made of, besides its config and its data.

    Attributes:
        config: the resolved config as YAML.
        step: optimizer steps done.
        steps_per_epoch: of the plan that the steps were counted in.
        is_evaluated: False where the evaluation at the end of an epoch is still due.
        detector, criterion, optimizer, scaler: state dicts.
        average: the state dict of the weight average, or None.
        best_metric: the best validation AP so far, or None.
        epochs_without_gain: evaluations since then.
        rng_state: torch's generator.
        format_version: of this layout.
    """

    config: str
    step: int
    steps_per_epoch: int
    is_evaluated: bool
    detector: dict[str, Any]
    criterion: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Any] | None
    best_metric: float | None
    epochs_without_gain: int
    rng_state: torch.Tensor
    format_version: int = FORMAT_VERSION


def save_state(state: TrainingState, path: Path) -> None:
    """Write the file in one step; see `retina.storage.replacing` for the errors."""
    content = io.BytesIO()
    torch.save({name: getattr(state, name) for name in TrainingState.__slots__}, content)
    with replacing(path) as aside:
        aside.write_bytes(content.getbuffer())


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
        fields = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable training state: {reason}") from None
    if not isinstance(fields, dict) or set(fields) != set(TrainingState.__slots__):
        raise UserError(f"{path}: not a training state of this project")
    if fields["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{path}: has format {fields['format_version']}, this program reads {FORMAT_VERSION}"
        )
    return TrainingState(**fields)
