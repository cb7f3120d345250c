"""Weights from files, and into detectors that need not match them entirely."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from retina.errors import UserError
from retina.modeling.detector_names import names_hint
from retina.modeling.torch_files import UNREADABLE, load_foreign, why_unreadable
from retina.wording import counted, first_line

StateDict = dict[str, Tensor]

COUNTER = ".num_batches_tracked"
"""Ending of the entries that only count the batches a BatchNorm has seen: no weights."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The state dict of a file.

    Attributes:
        state_dict: in host memory, under the names of the network that was trained.
        taken: which part of the file it is, a clause; empty where it is all of it.
    """

    state_dict: StateDict
    taken: str


def read_weights(path: Path | str) -> Weights:
    """The weights in a file of any project; nothing in the file is executed.

    Args:
        path: a ``.safetensors`` file, or a file written by ``torch.save``: a state dict, or a
            checkpoint of a training script that holds one under one of `_PARTS`. What wrappers
            (DataParallel, torch.compile, an average, a Lightning module) put before the names of
            all weights is left away.

    Raises:
        UserError: the file is missing or holds no state dict; the message names it.
    """
    path = Path(path)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load_foreign(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weight file{names_hint(path)}") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not a plain state dict: {why_unreadable(error)}") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as weights: {why_unreadable(error)}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    tensors, names, others = _find_tensors(content)
    if not tensors:
        held = ", ".join(sorted(map(str, content))[:8])
        raise UserError(f"{path}: holds no tensors that are weights (but {held or 'nothing'})")
    taken = f"the weights under '{'.'.join(names)}'" if names else ""
    if others:
        taken += f", not those under {' and '.join(map(repr, others))}"
    return Weights(_plain_names(tensors), taken)


def read_state_dict(path: Path | str) -> StateDict:
    """The tensors of a weight file: `read_weights` without where they stood."""
    return read_weights(path).state_dict


_PARTS = (
    *("model", "model_state_dict", "state_dict", "model_state", "network", "net", "weights"),
    *("module", "model_ema", "ema", "ema_state_dict", "state_dict_ema", "detector"),
)
"""Under which names checkpoints keep their weights; the first that is there is taken, so that an
average of the weights is only where there is nothing else."""


def _find_tensors(content: Mapping[Any, Any]) -> tuple[StateDict, tuple[str, ...], list[str]]:
    """The tensors of a state dict somewhere in a file, the keys that led there, and others'."""
    found = [key for key in _PARTS if _has_tensors(content.get(key))]
    if found:
        tensors, names, _ = _find_tensors(content[found[0]])
        return tensors, (found[0], *names), found[1:]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    whole = [key for key, value in content.items() if _is_state_dict(value)]
    if not tensors and len(whole) == 1:
        return _find_tensors(content[whole[0]])[0], (str(whole[0]),), []
    return tensors, (), []


def _is_state_dict(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(one, Tensor) for one in value.values())


def _has_tensors(value: object, depth: int = 4) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return any(isinstance(one, Tensor) for one in value.values()) or any(
        _has_tensors(value.get(key), depth - 1) for key in _PARTS
    )


_WRAPPERS = ("module.", "model.", "ema_model.", "network.", "net.")
"""What a wrapper puts before all names."""

_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and checkpointed activations put into names, also of a single part."""


def _plain_names(tensors: StateDict) -> StateDict:
    """The entries under the names that the network itself gives them."""
    plain = dict(tensors)
    plain.pop("n_averaged", None)  # the counter of torch's AveragedModel
    for inside in _INSIDE:
        plain = {name.replace(inside, ""): value for name, value in plain.items()}
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in plain)), ""):
        if not plain:
            break
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return plain


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


def described(problems: Sequence[str]) -> str:
    """``4 differences: …``, of which the first three are told; empty where there is none."""
    if not problems:
        return ""
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{counted(len(problems), 'difference')}: {'; '.join(problems[:3])}{rest}"


ModuleT = TypeVar("ModuleT", bound=nn.Module)


_DRAWING = (
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)
"""What fills a tensor with random numbers.

The three of ``nn.init`` are asked for as a whole, and what they call is not; the others there call
the tensor's.
"""


class _WithoutRandomValues(TorchFunctionMode):
    """What is made in its context keeps memory as it comes where random numbers would be drawn.

    Drawing them takes longer than reading the weights that replace them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


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
        with (
            torch.device("meta"),
            _WithoutRandomValues(),
            warnings.catch_warnings(action="ignore"),
        ):
            network = build()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(first_line(error)) from None
    try:
        with warnings.catch_warnings(action="ignore"):
            network.load_state_dict(dict(state_dict))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            described(misfits(network.state_dict(), state_dict)) or first_line(error)
        ) from None
    with _WithoutRandomValues():
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
        taken: which part of the file they are of, as in `Weights`.
        advice: what would let more of them be loaded, a sentence; empty where nothing would.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    taken: str = ""
    advice: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every weight of both sides found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """The report in words, one line for each weight that was not loaded."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        part = f" ({self.taken})" if self.taken else ""
        lines = [f"{len(self.loaded)} of {counted(total, 'weight')} loaded{part}"]
        lines += [
            f"not loaded, other shape: {m.name} is {m.in_detector} here, {m.in_file} in the file"
            for m in self.mismatched
        ]
        lines += [f"not loaded, not in the file: {name}" for name in self.missing]
        lines += [f"not used, unknown to this detector: {name}" for name in self.unexpected]
        lines += [self.advice] if self.advice else []
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
