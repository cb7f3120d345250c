r"""Weights for classes of very different frequency, from their effective number of examples.

.. math:: E_n = \frac{1 - \beta^n}{1 - \beta}

A new example adds less the more there are of its class (Cui et al. 2019, "Class-Balanced Loss Based
on Effective Number of Samples", eq. 2): β = 0 counts every class once, β → 1 every example.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina.losses.focal_parameters import DEFAULT_ALPHA

DEFAULT_BETA = 0.999
"""A class is worth 1000 examples at most."""


def effective_numbers(counts: Sequence[int] | Tensor, *, beta: float = DEFAULT_BETA) -> Tensor:
    """How many examples those of each class are worth: ``(K,)`` float64 in 1..1/(1 - β).

    A class without any example counts as if it had one.

    Args:
        counts: ``(K,)`` examples of each class.
        beta: in 0..1, 1 itself left out; 1/(1 - β) is what a class can be worth at most.

    Raises:
        ValueError: beta or a count makes no sense.
    """
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must be at least 0 and below 1, is {beta}: at 0.999 a class is worth 1000 "
            "examples at most"
        )
    numbers = torch.as_tensor(counts, dtype=torch.float64)
    if numbers.ndim != 1 or len(numbers) == 0 or not bool((numbers >= 0).all()):
        raise ValueError(f"counts must be one number ≥ 0 per class, are {counts}")
    return (1 - beta ** numbers.clamp(min=1)) / (1 - beta)


def class_balanced_weights(counts: Sequence[int] | Tensor, *, beta: float = DEFAULT_BETA) -> Tensor:
    """Class weights 1/E_n for a softmax loss, ``(K,)`` float64, whose sum is K (Cui et al. eq. 3).

    Args:
        counts: ``(K,)`` examples of each class.
        beta: as in `effective_numbers`.
    """
    weights = 1 / effective_numbers(counts, beta=beta)
    return weights * (len(weights) / weights.sum())


def class_balanced_alpha(
    counts: Sequence[int] | Tensor, *, beta: float = DEFAULT_BETA, alpha: float = DEFAULT_ALPHA
) -> Tensor:
    """The α of each class for a sigmoid focal loss, ``(K,)`` float64.

    The odds α : 1 - α, foreground against background, are multiplied with 1/E_n, relative to its
    mean over all examples. So the foreground as a whole keeps its weight (in odds), a rare class
    gains on its background, and classes of equal frequency all have ``alpha``. The result is kept
    1e-6 away from 0 and 1, where it would silence one side.

    Args:
        counts: ``(K,)`` examples of each class.
        beta: as in `effective_numbers`.
        alpha: of the mean example, in (0, 1).

    Raises:
        ValueError: alpha, beta or a count makes no sense.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, is {alpha}")
    weights = 1 / effective_numbers(counts, beta=beta)
    examples = torch.as_tensor(counts, dtype=torch.float64).clamp(min=1)
    odds = weights / ((weights * examples).sum() / examples.sum()) * (alpha / (1 - alpha))
    return (odds / (1 + odds)).clamp(1e-6, 1 - 1e-6)
