"""The file that a step which was not finite leaves behind, to be run again.

Letters as in `retina.structures`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retina.errors import UserError
from retina.modeling.torch_files import load_plain
from retina.storage import replacing
from retina.structures import Batch, BatchedTargets
from retina.wording import first_line

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """A step, with everything that it depends on.

    Attributes:
        config: the resolved experiment as YAML.
        class_names: of the labels.
        class_counts: the objects of each class in the training set.
        step: its number, from 1.
        rank: the process whose images these are.
        precision: of the network in the training.
        lr: the learning rate of the step.
        micro_batches: the fields of each accumulated `Batch` of this process, images as uint8.
        detector: the state dict before the step.
        criterion: the state dict before the step.
        format_version: of this layout.
    """

    config: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    step: int
    rank: int
    precision: str
    lr: float
    micro_batches: tuple[dict[str, Any], ...]
    detector: dict[str, Tensor]
    criterion: dict[str, Tensor]
    format_version: int = FORMAT_VERSION

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The batches of the step, in host memory."""
        return tuple(
            Batch(**{**part, "targets": BatchedTargets(**part["targets"])})
            for part in self.micro_batches
        )


def batch_fields(batches: Sequence[Batch]) -> tuple[dict[str, Any], ...]:
    """What `ReplayFile.micro_batches` holds of these batches."""
    return tuple(
        {
            "images": on_host(batch.images),
            "valid_sizes": on_host(batch.valid_sizes),
            "targets": {
                field.name: on_host(getattr(batch.targets, field.name))
                for field in fields(BatchedTargets)
            },
            "image_ids": batch.image_ids,
            "image_sizes": batch.image_sizes,
        }
        for batch in batches
    )


def on_host(value: Any) -> Any:
    """A tensor's own copy in host memory, whose storage holds nothing else; others as they are."""
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def save_replay(replay: ReplayFile, path: Path) -> None:
    """Write the file in one step; see `retina.storage.replacing` for the errors."""
    content = io.BytesIO()
    torch.save({field.name: getattr(replay, field.name) for field in fields(replay)}, content)
    with replacing(path) as aside:
        aside.write_bytes(content.getbuffer())


def load_replay(path: Path) -> ReplayFile:
    """Read a file without executing anything in it.

    Raises:
        UserError: the file is missing, damaged, or no replay file of this project.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        values = load_plain(content)
    except ValueError as error:
        raise UserError(f"{path}: not a readable replay file: {error}") from None
    expected = {field.name for field in fields(ReplayFile)}
    if not isinstance(values, dict) or not {"format_version", "class_names"} <= set(values):
        raise UserError(
            f"{path}: not a replay file; a training writes them to divergence/ in its run folder"
        )
    if values["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{path}: was written by another version of retina (format "
            f"{str(values['format_version'])[:20]}, this one reads {FORMAT_VERSION})"
        )
    if set(values) != expected:
        raise UserError(f"{path}: not a whole replay file; it lacks or adds fields")
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind):
            raise UserError(f"{path}: not a replay file; its '{name}' is no {kind.__name__}")
    replay = ReplayFile(**values)
    try:
        _check(replay.batches)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: its batch is not as it should be: {first_line(error)}") from None
    return replay


_KINDS: dict[str, type] = {
    "config": str,
    "class_names": tuple,
    "class_counts": tuple,
    "step": int,
    "rank": int,
    "precision": str,
    "lr": float,
    "micro_batches": tuple,
    "detector": dict,
    "criterion": dict,
}


def _check(batches: Sequence[Batch]) -> None:
    if not batches:
        raise ValueError("it is empty")
    for batch in batches:
        if batch.images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, not {batch.images.dtype}")
        targets = batch.targets
        if targets.boxes.dtype != torch.float32 or targets.labels.dtype != torch.int64:
            raise ValueError("boxes must be float32 and labels int64")
