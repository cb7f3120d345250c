"""α and γ of a sigmoid focal loss: what may be given, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from retina.losses.eager import is_plain, runs_eagerly

DEFAULT_GAMMA = 2.0
"""γ of every focal loss that is not told another: the paper's (Lin et al. 2017, table 1b)."""

DEFAULT_ALPHA = 0.25
"""α of every focal loss that is not told another: what the paper takes with γ = 2."""

Alpha = float | Sequence[float] | Tensor | None
Gamma = float | Sequence[float] | Tensor


@dataclass(frozen=True, slots=True)
class FocalParameters:
    """α and γ as the formulas use them; a tensor holds one value per class.

    Attributes:
        foreground: α_t of a target 1, a number or ``(K,)``.
        background: α_t of a target 0, of the same kind.
        gamma: the focusing parameter, a number or ``(K,)``.
        ignore_index: the target that is left out, None for none.
    """

    foreground: float | Tensor
    background: float | Tensor
    gamma: float | Tensor
    ignore_index: int | None

    @property
    def learn(self) -> bool:
        """Whether α or γ is itself to be differentiated."""
        values = (self.foreground, self.background, self.gamma)
        return any(isinstance(value, Tensor) and value.requires_grad for value in values)


def focal_parameters(
    alpha: Alpha, gamma: Gamma, ignore_index: int | None, logits: Tensor
) -> FocalParameters:
    """The parameters for these logits, in float32 at least and on their device.

    Raises:
        ValueError: alpha or gamma makes no sense, or does not fit the number of classes.
    """
    check_alpha(alpha)
    check_gamma(gamma)
    focusing = _per_class("gamma", gamma, logits)
    if alpha is None or (isinstance(alpha, Real) and alpha == 1):
        return FocalParameters(1.0, 1.0, focusing, ignore_index)
    foreground = _per_class("alpha", alpha, logits)
    return FocalParameters(foreground, 1 - foreground, focusing, ignore_index)


def check_alpha(alpha: Alpha) -> None:
    """Raise unless ``alpha`` is None, 1, or made of weights strictly between 0 and 1.

    A tensor on another device than the CPU is believed: to look would wait for the device.

    Raises:
        ValueError: says what the value would do and what to write instead.
    """
    if alpha is None or (isinstance(alpha, Real) and alpha == 1):
        return
    for entry in readable_numbers("alpha", alpha):
        if not 0 < entry < 1:
            effect = {
                0.0: "give the foreground no loss at all",
                1.0: "give that class's background no loss at all",
            }.get(entry, "give one side a negative weight")
            if math.isnan(entry):
                effect = "make every loss NaN"
            raise ValueError(
                f"alpha={entry:g} would {effect}; write a foreground weight strictly between 0 and "
                "1 (0.25 is the paper's), or None for no class weighting"
            )


def check_gamma(gamma: Gamma) -> None:
    """Raise unless ``gamma`` is made of finite numbers ≥ 0; tensors as in `check_alpha`.

    Raises:
        ValueError: names the value.
    """
    for entry in readable_numbers("gamma", gamma):
        if not 0 <= entry < math.inf:
            raise ValueError(
                f"gamma must be a finite number, at least 0, is {entry:g}: below 0 easy examples "
                "would count for more than hard ones; 2 is the paper's, 0 is cross-entropy"
            )


def readable_numbers(name: str, value: float | Sequence[float] | Tensor) -> list[float]:
    """The numbers in it; none of a tensor that is traced, mapped or on another device.

    Raises:
        ValueError: it is neither a number nor made of numbers; calls it ``name``.
    """
    if isinstance(value, Tensor):
        if value.device.type != "cpu" or not is_plain(value) or not runs_eagerly():
            return []
        numbers: list[float] = value.detach().double().flatten().tolist()
        return numbers
    entries = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(entry, Real) for entry in entries):
        raise ValueError(f"{name} must be a number, or one number per class, is {value!r}")
    return [float(entry) for entry in entries]


def _per_class(
    name: str, value: float | Sequence[float] | Tensor, logits: Tensor
) -> float | Tensor:
    if isinstance(value, Real):
        return float(value)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    values = torch.as_tensor(value, dtype=dtype, device=logits.device)
    if values.ndim == 0:
        return values.expand(logits.shape[-1:])
    if values.shape != logits.shape[-1:]:
        classes = logits.shape[-1] if logits.ndim else 1
        raise ValueError(
            f"{name} has shape {tuple(values.shape)} for {classes} classes (the last dimension of "
            "the logits): give one number, or one per class"
        )
    return values
