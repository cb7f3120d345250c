"""Logits counted by their value, finely enough that a loss can be read off the bins.

A bin also keeps the sum of its logits, so that what is read off its mean is right to first order.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 32.0
"""Bins cover ±`LIMIT` around a middle. What lies beyond falls into the outer bins: below, the loss
is under 1e-13 and does not matter; above, it is linear in the logit, so the sum gives it exactly.
"""

BINS_PER_UNIT = 256
NUM_BINS = int(2 * LIMIT) * BINS_PER_UNIT


def logit_histogram(
    logits: Tensor, groups: Tensor | None = None, *, num_groups: int = 1, middle: float = 0.0
) -> Tensor:
    """``(2, G, NUM_BINS)`` float64: by group and bin, how many logits there are, and their sum.

    Args:
        logits: float32, of any shape, on a device that has float64.
        groups: of the same shape, int64: ``0 .. G-1``, or G for what is left out; None is all 0.
        num_groups: G.
        middle: of the bins; an edge lies there.
    """
    bins = (logits - (middle - LIMIT)) * BINS_PER_UNIT
    # The second clamp catches NaN, which has no integer.
    bins = bins.clamp_(0, NUM_BINS - 1).long().clamp_(0, NUM_BINS - 1)
    if groups is not None:
        bins += groups * NUM_BINS
    bins = bins.flatten()
    length = (num_groups + 1) * NUM_BINS
    counts = torch.bincount(bins, minlength=length).double()
    # bincount with weights refuses deterministic algorithms on a GPU; this has one.
    sums = torch.zeros_like(counts).scatter_add_(0, bins, logits.flatten().double())
    return torch.stack([counts, sums])[:, : num_groups * NUM_BINS].view(2, num_groups, NUM_BINS)
