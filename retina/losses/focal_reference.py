r"""The sigmoid focal loss in plain PyTorch: the form that every faster one is tested against.

All of it comes from one function of one number. Let z be the logit of the wrong decision, x for a
target 0 and -x for a target 1. Then 1 - p_t = σ(z) and -log(p_t) = softplus(z), so that

.. math:: FL = \alpha_t \, \sigma(z)^\gamma \, \mathrm{softplus}(z)
.. math:: \partial FL / \partial z = \alpha_t \, \sigma(z)^\gamma
          (\sigma(z) + \gamma (1 - \sigma(z)) \, \mathrm{softplus}(z))

Neither has a difference of near-equal numbers, so both keep their digits where p_t is next to 0 or
to 1. Differentiable any number of times, in every floating tensor given; can be compiled, vmapped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters


def faded_cross_entropy(wrong_way: Tensor, gamma: float | Tensor) -> Tensor:
    """``σ(z)^γ softplus(z)``, elementwise; ``wrong_way`` is z.

    softplus(z) is written -logσ(-z): `torch.nn.functional.softplus` turns linear at 20, which is
    wrong by 1e-10 in float64. A power is the exponential of a log-sigmoid, so that neither it nor
    its derivative is ever 0 times infinity.
    """
    cross_entropy = -F.logsigmoid(-wrong_way)
    if not isinstance(gamma, Tensor):
        if gamma == 0:
            return cross_entropy
        if gamma == 1:
            return torch.sigmoid(wrong_way) * cross_entropy
        if gamma == 2:
            return torch.sigmoid(wrong_way).square() * cross_entropy
    return torch.exp(gamma * F.logsigmoid(wrong_way)) * cross_entropy


def dense_loss(logits: Tensor, targets: Tensor, parameters: FocalParameters) -> Tensor:
    """The loss of every element, of the logits' shape; a soft target y weighs both terms.

    Args:
        logits: any shape, float32 or float64.
        targets: ``y`` in 0..1, the same shape and dtype.
        parameters: per-class values belong to the last dimension.
    """
    positive = faded_cross_entropy(-logits, parameters.gamma)
    negative = faded_cross_entropy(logits, parameters.gamma)
    return targets * (parameters.foreground * positive) + (1 - targets) * (
        parameters.background * negative
    )


def class_index_loss(logits: Tensor, targets: Tensor, parameters: FocalParameters) -> Tensor:
    """The loss of every element, ``(..., K)``; rows of ``ignore_index`` have none.

    Args:
        logits: ``(..., K)``, float32 or float64.
        targets: integers ``(...)``: ``0 .. K-1`` the class, ``K`` the background.
        parameters: α and γ.
    """
    classes = torch.arange(logits.shape[-1], device=logits.device)
    is_own = targets.unsqueeze(-1) == classes  # (..., K)
    if parameters.ignore_index is not None:
        counted = (targets != parameters.ignore_index).unsqueeze(-1)
        logits = torch.where(counted, logits, 0.0)  # no NaN of a left-out row comes through
    loss = faded_cross_entropy(torch.where(is_own, -logits, logits), parameters.gamma)
    foreground, background = parameters.foreground, parameters.background
    if isinstance(foreground, Tensor) or foreground != 1 or background != 1:
        loss = torch.where(is_own, foreground * loss, background * loss)
    return loss if parameters.ignore_index is None else torch.where(counted, loss, 0.0)
