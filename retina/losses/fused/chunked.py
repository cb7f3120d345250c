r"""The focal loss of class indices and its gradient on a CPU, block by block, without a compiler.

A block of logits that fits the second-level cache goes through eight passes, and what lies between
them never reaches memory: torchvision's formula makes a dozen tensors of the logits' size. Nearly
every element of one-of-K targets is a negative, so a block is computed as if all were (dense, no
branch, no one-hot); the few own classes, and the rows to leave out, are put right. With
e = exp(x), t = log1p(e) = softplus(x) and s = e / (1 + e) = σ(x), a negative has

.. math:: FL = \alpha s^\gamma t, \quad
          \partial FL / \partial x = \alpha\gamma\, s^\gamma (t + s (1/\gamma - t))

as in `retina.losses.focal_reference`; the bracket is one linear interpolation from t to 1/γ. Beyond
x = 88 exp overflows in float32: s is then inf / inf, the block's sum says so by being NaN, and the
block is done again with functions that hold everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters
from retina.losses.fused.marked_rows import MarkedRows, own_classes

BLOCK_ELEMENTS = 32768
"""Logits per block and thread: five blocks of float32 are 640 KB, of a second-level cache of 1 to
2 MB. It is also the piece that torch gives a thread, so a smaller one would not be shared out."""

SMALL_GAMMA = 1e-6
"""Below it, 1/γ is no good end for an interpolation."""


def chunked_focal_loss(
    logits: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    *,
    row_weights: Tensor | None = None,
    scale: Tensor | None = None,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The summed loss, and its gradient if there is a tensor to write it to.

    Args:
        logits: ``(..., K)`` on the CPU, floating, of any strides.
        targets: integers ``(...)``: ``0 .. K-1`` the class, ``K`` the background.
        parameters: α and γ.
        row_weights: ``(...)`` factors of the rows.
        scale: ``()`` factor of everything, the total too.
        gradient: of the logits' shape and dtype, filled with ∂total/∂logits; may be the logits.

    Returns:
        ``()`` twice, float32 (float64 for float64 logits): the sum, and the share of it that comes
        from rows whose target is a class.
    """
    flat = targets.reshape(-1)
    weights = None if row_weights is None else row_weights.reshape(-1)
    blocks = _Blocks(logits, parameters, 1.0 if scale is None else float(scale))
    start = 0
    for rows, written in _as_rows(logits, gradient):
        at = slice(start, start + len(rows))
        blocks.add(rows, flat[at], None if weights is None else weights[at], written)
        start += len(rows)
    return blocks.result()


def _as_rows(logits: Tensor, gradient: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Both as ``(rows, K)``, in as few pieces as their strides allow; small ones are copied."""
    if logits.numel() == 0:
        return
    num_classes = logits.shape[-1]
    try:
        rows = logits.view(-1, num_classes)
        written = None if gradient is None else gradient.view(-1, num_classes)
    except RuntimeError:  # there is no such view
        if logits.numel() > 8 * BLOCK_ELEMENTS:
            for index in range(logits.shape[0]):
                yield from _as_rows(logits[index], None if gradient is None else gradient[index])
            return
        rows = logits.reshape(-1, num_classes)
        written = None if gradient is None else torch.empty_like(rows)
        yield rows, written
        if gradient is not None and written is not None:
            gradient.copy_(written.view(gradient.shape))
        return
    yield rows, written


class _Blocks:
    """Runs over rows in blocks, with scratch memory that they share, and adds up the losses."""

    def __init__(self, logits: Tensor, parameters: FocalParameters, factor: float) -> None:
        self.parameters = parameters
        self.factor = factor
        self.total = self.foreground = 0.0
        self.dtype = torch.promote_types(logits.dtype, torch.float32)
        num_classes = max(1, logits.shape[-1])
        self.rows_per_block = max(1, BLOCK_ELEMENTS * torch.get_num_threads() // num_classes)
        size = min(self.rows_per_block * num_classes, logits.numel())
        self.copied, self.power, self.softplus, self.sigmoid = (
            torch.empty(size, dtype=self.dtype) for _ in range(4)
        )
        self.zero = torch.zeros((), dtype=self.dtype)
        gamma = parameters.gamma
        self.interpolates = not isinstance(gamma, Tensor) and gamma > SMALL_GAMMA
        end = 1 / gamma if self.interpolates else 1.0
        self.end = torch.as_tensor(end, dtype=self.dtype)
        background = parameters.background
        self.slope = factor if isinstance(background, Tensor) else factor * background
        self.value = self.slope

    def result(self) -> tuple[Tensor, Tensor]:
        """The sum of all losses, and of those in rows that have a class."""
        return (
            torch.tensor(self.total, dtype=self.dtype),
            torch.tensor(self.foreground, dtype=self.dtype),
        )
