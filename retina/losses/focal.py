r"""The sigmoid focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 5).

.. math:: FL(p_t) = -\alpha_t (1 - p_t)^\gamma \log(p_t)

γ = 0 is (α-weighted) cross-entropy. At γ = 2 an example with p_t = 0.9 loses a factor of 100
against cross-entropy, one with p_t = 0.5 a factor of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Alpha = float | Sequence[float] | Tensor | None
Reduction = Literal["none", "sum", "mean"]


def check_alpha(alpha: float | Sequence[float] | None) -> None:
    """Raise unless ``alpha`` is None, 1, or made of weights strictly between 0 and 1.

    Raises:
        ValueError: says what the value would do and what to write instead.
    """
    if alpha is None or alpha == 1:
        return
    entries = [alpha] if isinstance(alpha, int | float) else list(alpha)
    for entry in entries:
        if not 0 < entry < 1:
            effect = {
                0.0: "give the foreground no loss at all",
                1.0: "give that class's background no loss at all",
            }.get(float(entry), "give one side a negative weight")
            raise ValueError(
                f"alpha={entry:g} would {effect}; write a foreground weight strictly between 0 and "
                "1 (0.25 is the paper's), or None for no class weighting"
            )


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "none",
    ignore_index: int = -100,
) -> Tensor:
    """The focal loss of independent binary decisions.

    Args:
        logits: ``(..., K)``, or any shape with float targets; computed in float32 at least.
        targets: floats of the logits' shape in 0..1 (soft targets weigh both terms), or integers
            ``(...)``: ``0 .. K-1`` is the class, ``K`` the background, ``ignore_index`` left out.
            Integer targets never become a one-hot tensor.
        alpha: the foreground's weight in (0, 1), the background gets ``1 - alpha``; a sequence or
            tensor holds one weight per class. None weighs nothing (α_t = 1), and so does 1:
            torchvision's function gives every negative exactly zero loss at ``alpha=1``, which is
            never wanted.
        gamma: the focusing parameter, ≥ 0.
        reduction: ``none`` returns the shape of the logits, ``sum`` and ``mean`` a scalar; the
            mean is over the elements that are not ignored.
        ignore_index: the integer target whose row has no loss.

    Raises:
        ValueError: alpha, gamma or the shapes make no sense.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be at least 0, is {gamma}: below 0 easy examples would grow")
    if not isinstance(alpha, Tensor):
        check_alpha(alpha)
    foreground, background = _weights(alpha, logits)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise ValueError(
                f"float targets {tuple(targets.shape)} must have the shape of the logits "
                f"{tuple(logits.shape)}; give integers for one class per row"
            )
        loss = targets * foreground * _modulated(-logits, gamma) + (
            1 - targets
        ) * background * _modulated(logits, gamma)
        return _reduce(loss, reduction, count=None)
    return _integer_targets(logits, targets, foreground, background, gamma, reduction, ignore_index)


@dataclass(frozen=True, slots=True)
class FocalSums:
    """The summed focal loss of integer targets.

    Attributes:
        total: ``()``, to be differentiated with respect to the logits.
        foreground: ``()``, the share of ``total`` that comes from rows whose target is a class
            (all K entries of such a row); not differentiable.
    """

    total: Tensor
    foreground: Tensor


def focal_loss_sums(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha = 0.25,
    gamma: float | Sequence[float] | Tensor = 2.0,
    ignore_index: int | None = None,
    row_weights: Tensor | None = None,
) -> FocalSums:
    """The focal loss of integer targets, summed, and how much of it comes from the foreground.

    Args:
        logits: ``(..., K)``.
        targets: integers ``(...)``: ``0 .. K-1`` the class, ``K`` the background.
        alpha: as in `sigmoid_focal_loss`.
        gamma: as in `sigmoid_focal_loss`.
        ignore_index: the target whose row has no loss.
        row_weights: ``(...)`` floats that the rows' losses are multiplied with; not differentiated.
    """
    loss = sigmoid_focal_loss(
        logits,
        targets,
        alpha=alpha,
        gamma=gamma,  # type: ignore[arg-type]
        ignore_index=-100 if ignore_index is None else ignore_index,
    )
    if row_weights is not None:
        loss = loss * row_weights.detach().unsqueeze(-1)
    is_foreground = (targets >= 0) & (targets < logits.shape[-1])
    if ignore_index is not None:
        is_foreground = is_foreground & (targets != ignore_index)
    foreground = (loss.detach() * is_foreground.unsqueeze(-1)).sum()
    return FocalSums(total=loss.sum(), foreground=foreground)


def _weights(alpha: Alpha, logits: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """The weights of foreground and background: scalars, or ``(K,)`` each."""
    if alpha is None or (isinstance(alpha, int | float) and alpha == 1):
        return 1.0, 1.0
    if isinstance(alpha, int | float):
        return float(alpha), 1.0 - float(alpha)
    per_class = torch.as_tensor(alpha, dtype=torch.float32, device=logits.device)
    if per_class.shape != logits.shape[-1:]:
        raise ValueError(
            f"alpha has {tuple(per_class.shape)} entries for {logits.shape[-1]} classes"
        )
    return per_class, 1.0 - per_class


def _modulated(wrong_way: Tensor, gamma: float) -> Tensor:
    """``(1 - p_t)^gamma * -log(p_t)`` of decisions whose logit for the wrong side is given.

    With z that logit, 1 - p_t = σ(z) and -log(p_t) = softplus(z); the power is an exponential of a
    log-sigmoid, so that neither it nor its gradient can become NaN.
    """
    cross_entropy = F.softplus(wrong_way)
    if gamma == 0:
        return cross_entropy
    if gamma == 2:
        return torch.sigmoid(wrong_way).square() * cross_entropy
    return torch.exp(gamma * F.logsigmoid(wrong_way)) * cross_entropy


def _integer_targets(
    logits: Tensor,
    targets: Tensor,
    foreground: Tensor | float,
    background: Tensor | float,
    gamma: float,
    reduction: Reduction,
    ignore_index: int,
) -> Tensor:
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"integer targets {tuple(targets.shape)} must have the shape of the logits without "
            f"their last dimension, {tuple(logits.shape[:-1])}"
        )
    num_classes = logits.shape[-1]
    counted = targets != ignore_index
    is_foreground = counted & (targets < num_classes)
    own_class = torch.where(is_foreground, targets, 0).unsqueeze(-1)  # (..., 1)

    loss = background * _modulated(logits, gamma)  # (..., K), as if every entry were negative
    if isinstance(foreground, Tensor):
        foreground = foreground[own_class]
    own_loss = foreground * _modulated(-logits.gather(-1, own_class), gamma)  # (..., 1)
    own_loss = torch.where(is_foreground.unsqueeze(-1), own_loss, loss.gather(-1, own_class))
    loss = loss.scatter(-1, own_class, own_loss) * counted.unsqueeze(-1)
    return _reduce(loss, reduction, count=counted.sum() * num_classes)


def _reduce(loss: Tensor, reduction: Reduction, count: Tensor | None) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if count is None else loss.sum() / count.clamp(min=1)
    raise ValueError(f"reduction must be 'none', 'sum' or 'mean', is {reduction!r}")
