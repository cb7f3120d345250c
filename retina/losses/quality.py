r"""Focal losses whose target is a quality: how well the predicted box fits, instead of 1.

Quality focal loss (Li et al. 2020, "Generalized Focal Loss", eq. 3), with σ the score and y the
wanted quality, and varifocal loss (Zhang et al. 2021, "VarifocalNet", eq. 2):

.. math:: QFL = |y - \sigma|^\beta \, BCE(\sigma, y)
.. math:: VFL = y \, BCE(\sigma, y)\ (y > 0), \quad \alpha \sigma^\gamma \, BCE(\sigma, 0)\ (y = 0)

Targets are floats of the logits' shape, the qualities themselves; or integers ``(...)`` (0 … K-1
the class, K the background) and the quality ``(...)`` of each row's own class.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.eager import is_plain, runs_eagerly
from retina.losses.focal import FocalSums, focal_loss_sums
from retina.losses.focal_parameters import DEFAULT_GAMMA
from retina.losses.focal_targets import (
    check_class_indices,
    check_dense_targets,
    counted_and_class,
    widened,
)
from retina.losses.reduction import Reduction, check_reduction, reduced

DEFAULT_BETA = 2.0
"""The paper's β of the quality focal loss."""

VARIFOCAL_ALPHA = 0.75
"""The paper's α of the varifocal loss, which weighs the negatives."""

Entry = Callable[[Tensor, Tensor], Tensor]
"""The loss of logits with these qualities, elementwise."""

_CERTAIN = 3e4
"""A logit whose focal loss as a positive is 0, with gradient 0; finite in float16 too."""


def quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor | None = None,
    *,
    beta: float = DEFAULT_BETA,
    ignore_index: int | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """The focal loss of a score that is to be a quality in 0..1.

    Args:
        logits: ``(..., K)``; computed in float32 at least.
        targets: qualities of the logits' shape, or integers ``(...)`` with ``quality``.
        quality: ``(...)`` in 0..1, not differentiated; read where the target is a class.
        beta: the exponent of the error, ≥ 0; 0 is binary cross-entropy.
        ignore_index: the integer target whose row has no loss.
        reduction: ``none`` returns the shape of the logits, ``sum`` and ``mean`` a scalar; the
            mean is over the elements that are not ignored.

    Raises:
        ValueError: beta, the reduction or the shapes make no sense, or float targets come with an
            ``ignore_index``; on a CPU also a target or a quality that is out of range.
    """
    check_quality_focal_options(beta)
    return _loss(logits, targets, quality, _quality_focal(beta), ignore_index, reduction)


def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor | None = None,
    *,
    alpha: float = VARIFOCAL_ALPHA,
    gamma: float = DEFAULT_GAMMA,
    ignore_index: int | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Binary cross-entropy to the quality, in which only the negatives are faded.

    Args:
        logits: ``(..., K)``; computed in float32 at least.
        targets: qualities of the logits' shape, or integers ``(...)`` with ``quality``. A positive
            whose quality is 0 is a negative.
        quality: ``(...)`` in 0..1, not differentiated; read where the target is a class.
        alpha: the weight of the negatives, > 0; not the alpha of the focal loss, the positives have
            their quality as weight.
        gamma: the focusing parameter of the negatives, ≥ 0.
        ignore_index: the integer target whose row has no loss.
        reduction: ``none`` returns the shape of the logits, ``sum`` and ``mean`` a scalar; the
            mean is over the elements that are not ignored.

    Raises:
        ValueError: alpha, gamma, the reduction or the shapes make no sense, or float targets come
            with an ``ignore_index``; on a CPU also a target or a quality that is out of range.
    """
    check_varifocal_options(alpha, gamma)
    return _loss(logits, targets, quality, _varifocal(alpha, gamma), ignore_index, reduction)


def quality_focal_loss_sums(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor,
    *,
    beta: float = DEFAULT_BETA,
    ignore_index: int | None = None,
    row_weights: Tensor | None = None,
) -> FocalSums:
    """`quality_focal_loss` of integer targets, summed; the arguments as in `focal_loss_sums`."""
    check_quality_focal_options(beta)
    own = _quality_focal(beta)
    return _sums(logits, targets, quality, own, 1.0, beta, ignore_index, row_weights)


def varifocal_loss_sums(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor,
    *,
    alpha: float = VARIFOCAL_ALPHA,
    gamma: float = DEFAULT_GAMMA,
    ignore_index: int | None = None,
    row_weights: Tensor | None = None,
) -> FocalSums:
    """`varifocal_loss` of integer targets, summed; the arguments as in `focal_loss_sums`."""
    check_varifocal_options(alpha, gamma)
    own = _varifocal(alpha, gamma)
    return _sums(logits, targets, quality, own, alpha, gamma, ignore_index, row_weights)


def check_quality_focal_options(beta: float) -> None:
    """Raise ValueError for an exponent that makes no sense."""
    _check_exponent("beta", beta)


def check_varifocal_options(alpha: float, gamma: float) -> None:
    """Raise ValueError for a weight or an exponent that makes no sense."""
    if not 0 < alpha < math.inf:
        raise ValueError(
            f"alpha must be above 0 and finite, is {alpha}: it is the weight of the negatives"
        )
    _check_exponent("gamma", gamma)


def _check_exponent(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, at least 0, is {value}")


def _quality_focal(beta: float) -> Entry:
    def entry(logits: Tensor, quality: Tensor) -> Tensor:
        # y - σ, without the cancellation that loses sure scores at y = 1
        error = quality * torch.sigmoid(-logits) - (1 - quality) * torch.sigmoid(logits)
        return _power(error.abs(), beta) * _cross_entropy(logits, quality)

    return entry


def _varifocal(alpha: float, gamma: float) -> Entry:
    def entry(logits: Tensor, quality: Tensor) -> Tensor:
        faded = alpha * _power(torch.sigmoid(logits), gamma)
        weight = torch.where(quality > 0, quality, faded)
        return weight * _cross_entropy(logits, quality)

    return entry


def _cross_entropy(logits: Tensor, quality: Tensor) -> Tensor:
    return -quality * F.logsigmoid(logits) - (1 - quality) * F.logsigmoid(-logits)


def _power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` for bases in 0..1; the gradient at 0 is 0, whatever the exponent."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent == 2:
        return base.square()
    is_zero = base == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, base).pow(exponent))


def _loss(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor | None,
    entry: Entry,
    ignore_index: int | None,
    reduction: Reduction,
) -> Tensor:
    check_reduction(reduction)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if targets.is_floating_point():
        if targets.shape != logits.shape or quality is not None:
            raise ValueError(
                f"float targets {tuple(targets.shape)} are the qualities: they have the shape of "
                f"the logits {tuple(logits.shape)}, and quality is None"
            )
        if ignore_index is not None:
            raise ValueError("ignore_index works with integer targets; these are floats")
        check_dense_targets(targets, None)
        loss = entry(logits, targets.detach().to(logits.dtype))
        return reduced(loss, reduction, loss.numel())
    own, is_class, counted = _read_rows(logits, targets, quality, ignore_index)
    assert quality is not None
    logits = torch.where(counted, logits, 0.0)  # no NaN of a left-out row comes through
    wanted = quality.detach().to(logits.dtype).unsqueeze(-1)  # (..., 1)
    loss = entry(logits, torch.zeros_like(logits))
    own_loss = entry(logits.gather(-1, own), torch.where(is_class, wanted, 0.0))
    loss = loss.scatter(-1, own, own_loss) * counted
    return reduced(loss, reduction, counted.sum() * logits.shape[-1])


def _sums(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor,
    entry: Entry,
    weight: float,
    gamma: float,
    ignore_index: int | None,
    row_weights: Tensor | None,
) -> FocalSums:
    """The negatives by the fast path of the plain focal loss, the row's own class by itself.

    In the fast path the own class stands as a positive beyond doubt, which costs nothing.
    """
    own, is_class, _ = _read_rows(logits, targets, quality, ignore_index)
    own_logits = logits.gather(-1, own)  # (..., 1)
    hidden = logits.scatter(-1, own, torch.where(is_class, _CERTAIN, own_logits))
    negatives = focal_loss_sums(
        hidden,
        targets,
        alpha=None,
        gamma=gamma,
        ignore_index=ignore_index,
        row_weights=row_weights,
    )
    own_logits = torch.where(is_class, own_logits, 0.0)  # no NaN of a left-out row comes through
    own_logits = own_logits if logits.dtype == torch.float64 else own_logits.float()
    wanted = torch.where(is_class, quality.detach().to(own_logits.dtype).unsqueeze(-1), 0.0)
    own_loss = torch.where(is_class, entry(own_logits, wanted), 0.0).squeeze(-1)
    if row_weights is not None:
        own_loss = own_loss * row_weights.detach()
    positives = own_loss.sum()
    return FocalSums(
        total=weight * negatives.total + positives,
        foreground=weight * negatives.foreground + positives.detach(),
    )


def _read_rows(
    logits: Tensor, targets: Tensor, quality: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``(..., 1)`` each: the row's class, whether it has one, and whether it counts at all."""
    if quality is None or targets.shape != logits.shape[:-1] or quality.shape != targets.shape:
        shape = None if quality is None else tuple(quality.shape)
        raise ValueError(
            f"integer targets {tuple(targets.shape)} and their quality {shape} must both have the "
            f"shape of the logits without their last dimension, {tuple(logits.shape[:-1])}"
        )
    targets = widened(targets)
    check_class_indices(targets, logits.shape[-1], ignore_index)
    counted, is_class = counted_and_class(targets, logits.shape[-1], ignore_index)
    _check_quality(quality, is_class)
    own = torch.where(is_class, targets, 0).long()
    return own.unsqueeze(-1), is_class.unsqueeze(-1), counted.unsqueeze(-1)


def _check_quality(quality: Tensor, is_class: Tensor) -> None:
    """Raise ValueError unless all that is read is in 0..1; only on a CPU, to look does not wait.

    NaN passes, and shows in the loss: it comes from boxes that are NaN, not from a wrong call.
    """
    if quality.device.type != "cpu" or not (is_plain(quality) and runs_eagerly()):
        return
    wrong = quality[is_class & ((quality < 0) | (quality > 1))]
    if len(wrong):
        raise ValueError(f"quality {wrong[0].item():g} of a row is not in 0..1")
