r"""The focal loss of one class out of K, from a softmax (Lin et al. 2017, eq. 4, per class).

.. math:: FL(p_t) = -w_t (1 - p_t)^\gamma \log(p_t), \quad p = \mathrm{softmax}(logits)

Everything is computed from the margin m = log(p_t / (1 - p_t)), the target's logit against the
log-sum-exp of all others: -log(p_t) = softplus(-m) and 1 - p_t = σ(-m) keep their digits, and their
gradients, where p_t itself rounds to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import DEFAULT_GAMMA, Gamma, check_gamma, readable_numbers
from retina.losses.focal_targets import check_class_indices, widened
from retina.losses.reduction import Reduction, check_reduction, reduced


def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: Gamma = DEFAULT_GAMMA,
    class_weights: Sequence[float] | Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "none",
) -> Tensor:
    """The focal loss of one class out of K; γ = 0 is `torch.nn.functional.cross_entropy`.

    Args:
        logits: ``(K,)``, ``(N, K)`` or ``(N, K, d1, …)``; computed in float32 at least.
        targets: integers of the logits' shape without K, or floats of the logits' shape, a
            probability per class. With those (and with smoothing) the loss is the sum of
            ``q_c (1 - p_c)^γ (-log p_c)`` over the classes: each is faded by its own probability.
        gamma: the focusing parameter, ≥ 0; a sequence or ``(K,)`` tensor holds one per class.
        class_weights: ``(K,)`` factors of the classes' terms, ≥ 0.
        ignore_index: the integer target that has no loss.
        label_smoothing: in 0..1, the part of the target that is spread over all classes.
        reduction: ``none`` returns ``(N, d1, …)``, ``sum`` and ``mean`` a scalar. The divisor of
            the mean is cross_entropy's: with integers, the sum of ``class_weights[target]`` over
            the elements that are not ignored (without weights, their number); with probabilities,
            the number of elements N·d1·…, whatever the weights. Where the divisor is 0 the mean is
            0 (that of cross_entropy is NaN).

    Raises:
        ValueError: an option or the shapes make no sense, or a class is out of range (on CUDA a
            device assertion, so that nothing waits).
    """
    check_softmax_options(gamma, class_weights, label_smoothing, reduction)
    targets = widened(targets)
    _check_shapes(logits, targets)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    dim = min(1, logits.ndim - 1)  # of the classes
    focusing = _per_class(gamma, logits, dim, "gamma")
    weights = (
        None if class_weights is None else _per_class(class_weights, logits, dim, "class_weights")
    )
    if targets.is_floating_point():
        wanted = targets.to(logits.dtype)
        loss = _soft_loss(logits, _smoothed(wanted, label_smoothing, dim), focusing, weights, dim)
        return reduced(loss, reduction, loss.numel())

    check_class_indices(targets, logits.shape[dim], ignore_index, has_background=False)
    counted = targets != ignore_index
    logits = torch.where(counted.unsqueeze(dim), logits, 0.0)  # no NaN of an ignored one comes out
    index = torch.where(counted, targets, 0).long().unsqueeze(dim)  # (N, 1, d1, …)
    share = counted.to(logits.dtype)
    if isinstance(weights, Tensor):
        share = share * weights.expand_as(logits).gather(dim, index).squeeze(dim)
    if label_smoothing > 0:
        one_hot = torch.zeros_like(logits).scatter(dim, index, 1.0)
        loss = _soft_loss(logits, _smoothed(one_hot, label_smoothing, dim), focusing, weights, dim)
        return reduced(loss * counted, reduction, share.sum())
    if isinstance(focusing, Tensor):
        focusing = focusing.expand_as(logits).gather(dim, index).squeeze(dim)
    loss = share * _faded(_margin(logits, index, dim), focusing)
    return reduced(loss, reduction, share.sum())


def check_softmax_options(
    gamma: Gamma,
    class_weights: Sequence[float] | Tensor | None,
    label_smoothing: float,
    reduction: str,
) -> None:
    """Raise ValueError for an option that makes no sense, as far as it can be read on a CPU."""
    check_gamma(gamma)
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, is {label_smoothing}")
    if class_weights is None:
        return
    for weight in readable_numbers("class_weights", class_weights):
        if not 0 <= weight < math.inf:
            raise ValueError(f"class_weights must be finite numbers, at least 0, have {weight:g}")


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    dim = min(1, logits.ndim - 1)
    wanted = logits.shape
    if not targets.is_floating_point():
        wanted = wanted[:dim] + wanted[dim + 1 :]
    if logits.ndim == 0 or targets.shape != wanted:
        raise ValueError(
            f"targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}: give "
            "integers of their shape without the class dimension, or probabilities of their shape"
        )


def _per_class(value: Gamma, logits: Tensor, dim: int, name: str) -> Tensor | float:
    """A number as it is, one value per class in a shape that broadcasts against the logits."""
    if isinstance(value, Real):
        return float(value)
    values = torch.as_tensor(value, dtype=logits.dtype, device=logits.device)
    if values.ndim == 0:
        values = values.expand(logits.shape[dim])
    if values.shape != logits.shape[dim : dim + 1]:
        raise ValueError(f"{name} has shape {tuple(values.shape)} for {logits.shape[dim]} classes")
    return values.reshape(-1, *[1] * (logits.ndim - 1 - dim))


def _smoothed(probabilities: Tensor, label_smoothing: float, dim: int) -> Tensor:
    num_classes = probabilities.shape[dim]
    return probabilities * (1 - label_smoothing) + label_smoothing / num_classes


def _margin(logits: Tensor, index: Tensor, dim: int) -> Tensor:
    """log(p / (1 - p)) of the class that ``index`` picks, without the class dimension.

    Subtracted before the sum, not after: a log-sum-exp near 1e4 has lost its decimals.
    """
    nothing = torch.finfo(logits.dtype).min  # not -inf, which has no gradient with one class
    ahead = logits - logits.gather(dim, index)
    return -ahead.scatter(dim, index, nothing).logsumexp(dim)


def _faded(margin: Tensor, gamma: Tensor | float) -> Tensor:
    """``(1 - p_t)^γ · -log(p_t)`` from log(p_t / (1 - p_t)).

    log-sigmoid instead of softplus, which torch makes linear beyond 20: wrong in float64.
    """
    cross_entropy = -F.logsigmoid(margin)
    if isinstance(gamma, float):
        if gamma == 0:
            return cross_entropy
        if gamma == 2:
            return torch.sigmoid(-margin).square() * cross_entropy
    return torch.exp(gamma * F.logsigmoid(-margin)) * cross_entropy


def _soft_loss(
    logits: Tensor,
    wanted: Tensor,
    gamma: Tensor | float,
    weights: Tensor | float | None,
    dim: int,
) -> Tensor:
    """The sum over the classes of ``w_c q_c (1 - p_c)^γ (-log p_c)``.

    Only the most probable class can come near p = 1, where 1 - p must not be computed from p; for
    the others p ≤ 1/2, and log1p(-p) has all its digits.
    """
    top = logits.detach().argmax(dim, keepdim=True)
    margin = _margin(logits, top, dim).unsqueeze(dim)
    log_p = logits.log_softmax(dim)
    if not isinstance(gamma, float) or gamma > 0:
        log_rest = torch.log1p(-log_p.exp().scatter(dim, top, 0.0))
        log_rest = log_rest.scatter(dim, top, F.logsigmoid(-margin))
        wanted = wanted * torch.exp(gamma * log_rest)
    loss = -wanted * log_p.scatter(dim, top, F.logsigmoid(margin))
    if weights is not None:
        loss = loss * weights
    return loss.sum(dim)
