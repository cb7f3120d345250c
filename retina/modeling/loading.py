"""Weights from files, and into detectors that need not match them entirely."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from retina.errors import UserError
from retina.modeling.torch_files import UNREADABLE, check_records, first_line

StateDict = dict[str, Tensor]

COUNTER = ".num_batches_tracked"
"""Ending of the entries that only count the batches a BatchNorm has seen: no weights."""


def read_state_dict(path: Path | str) -> StateDict:
    """The tensors of a weight file, in host memory; nothing in the file is executed.

    Args:
        path: a ``.safetensors`` file, or a file written by ``torch.save`` that holds a state dict
            (also one under the key ``model`` or ``state_dict``).

    Raises:
        UserError: the file is missing or holds no state dict; the message names it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            check_records(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weight file") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a plain state dict (it is damaged or holds more than tensors): "
            f"{first_line(error)}"
        ) from None
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as weights: {first_line(error)}") from None
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    return tensors


def without_counters(state_dict: Mapping[str, Tensor]) -> StateDict:
    """The entries that are weights or statistics."""
    return {name: value for name, value in state_dict.items() if not name.endswith(COUNTER)}


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """In words, which entries are missing, unknown, or of another shape than expected."""
    return [
        *(f"'{name}' is missing" for name in expected if name not in given),
        *(f"'{name}' is unknown" for name in given if name not in expected),
        *(
            f"'{name}' is {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ),
    ]


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def build_with_weights(build: Callable[[], ModuleT], state_dict: Mapping[str, Tensor]) -> ModuleT:
    """A network with its weights, which must fit it entirely.

    Args:
        build: makes the network; called first without memory, since a small file may claim to hold
            a network of any size.
        state_dict: its weights.

    Raises:
        ValueError: the weights do not fit the architecture.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            build().load_state_dict(dict(state_dict))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    network = build()
    network.load_state_dict(dict(state_dict))
    return network


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A weight that exists on both sides, but not in the same shape."""

    name: str
    in_detector: tuple[int, ...]
    in_file: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of every weight.

    Attributes:
        loaded: names that were loaded.
        missing: names of the detector that the file does not have; they keep their values.
        unexpected: names of the file that the detector does not have.
        mismatched: names on both sides, in different shapes; the detector's keep their values.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every weight of both sides found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """The report in words, one line for each weight that was not loaded."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [f"{len(self.loaded)} of {total} weights loaded"]
        lines += [
            f"not loaded, other shape: {m.name} is {m.in_detector} here, {m.in_file} in the file"
            for m in self.mismatched
        ]
        lines += [f"not loaded, not in the file: {name}" for name in self.missing]
        lines += [f"not used, unknown to this detector: {name}" for name in self.unexpected]
        return "\n".join(lines)


def load_matching(detector: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Load every weight that fits by name and shape, and say exactly what was not loaded.

    This is how a detector is fine-tuned to other classes: all but the layer that gives the class
    logits fits.

    Raises:
        UserError: nothing fits.
    """
    own = detector.state_dict()
    fitting = {
        name: value
        for name, value in state_dict.items()
        if name in own and value.shape == own[name].shape
    }
    detector.load_state_dict(fitting, strict=False)
    report = LoadReport(
        loaded=tuple(name for name in fitting if not name.endswith(COUNTER)),
        missing=tuple(name for name in without_counters(own) if name not in state_dict),
        unexpected=tuple(name for name in without_counters(state_dict) if name not in own),
        mismatched=tuple(
            Mismatch(name, tuple(own[name].shape), tuple(value.shape))
            for name, value in state_dict.items()
            if name in own and value.shape != own[name].shape
        ),
    )
    if not report.loaded:
        raise UserError(
            f"none of the {len(state_dict)} weights fits this detector (the file has, for example, "
            f"{', '.join(list(state_dict)[:3])}; the detector {', '.join(list(own)[:3])})"
        )
    return report
