r"""Distribution focal loss: a distribution over bins whose expectation is to be a number.

Li et al. 2020, "Generalized Focal Loss", eq. 6, with y between the bins i and i + 1 and S the
softmax:

.. math:: DFL = -((i + 1 - y) \log S_i + (y - i) \log S_{i+1})
"""

from __future__ import annotations

import torch
from torch import Tensor

from retina.losses.reduction import Reduction, check_reduction, reduced

_BELOW_THE_LAST = 0.1
"""Targets end this much below the last bin, as the authors have it; the bin to their right always
exists."""


def distribution_focal_loss(
    logits: Tensor, target: Tensor, *, reduction: Reduction = "none"
) -> Tensor:
    """Cross-entropy to the two bins around each target, the nearer one weighing more.

    It draws the whole mass to these two, where the expectation alone could be met by any spread.

    Args:
        logits: ``(..., n + 1)``, of the bins 0 … n, n ≥ 1; computed in float32 at least.
        target: ``(...)`` in bins, not differentiated; cut off at 0 and at n - 0.1.
        reduction: ``none`` returns the shape of the target, ``sum`` and ``mean`` a scalar.

    Raises:
        ValueError: the shapes do not fit each other, or there is no such reduction.
    """
    check_reduction(reduction)
    if logits.ndim == 0 or logits.shape[-1] < 2 or target.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets {tuple(target.shape)} must have the shape of the logits "
            f"{tuple(logits.shape)} without their last dimension, which has at least 2 bins"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    last = logits.shape[-1] - 1
    log_shares = logits.to(dtype).log_softmax(dim=-1)
    wanted = target.detach().to(dtype).clamp(0, last - _BELOW_THE_LAST)
    left = wanted.floor()
    bins = left.long().unsqueeze(-1)
    at_left = log_shares.gather(-1, bins).squeeze(-1)
    at_right = log_shares.gather(-1, bins + 1).squeeze(-1)
    loss = -((left + 1 - wanted) * at_left + (wanted - left) * at_right)
    return reduced(loss, reduction, loss.numel())
