r"""The focal loss of class indices and its gradient on a CPU, block by block, without a compiler.

A block of logits that fits the second-level cache goes through eleven passes, and what lies between
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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters
from retina.losses.fused.marked_rows import MarkedRows, Marks, own_classes

BLOCK_ELEMENTS = 32768
"""Logits per block and thread: six blocks of float32 are 768 KB, of a second-level cache of 1 to
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


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The memory of one block, used again by the next; ``(rows, K)`` each.

    Attributes:
        copied: the logits, where they cannot be read as they are.
        rest: of the logarithm.
        power: weight · σ^γ; before that, exp(x).
        softplus: -log(1 - σ); in the end, the bracket of the derivative.
        sigmoid: σ.
    """

    copied: Tensor
    rest: Tensor
    power: Tensor
    softplus: Tensor
    sigmoid: Tensor

    @classmethod
    def of(cls, num_rows: int, num_classes: int, dtype: torch.dtype) -> _Scratch:
        return cls(*(torch.empty(num_rows, num_classes, dtype=dtype) for _ in range(5)))

    def first(self, num_rows: int) -> _Scratch:
        if num_rows == len(self.power):
            return self
        return _Scratch(
            self.copied[:num_rows],
            self.rest[:num_rows],
            self.power[:num_rows],
            self.softplus[:num_rows],
            self.sigmoid[:num_rows],
        )


class _Blocks:
    """Goes over rows block by block and adds up the losses."""

    def __init__(self, logits: Tensor, parameters: FocalParameters, factor: float) -> None:
        self.parameters = parameters
        self.factor = factor
        self.total = self.foreground = 0.0
        self.dtype = torch.promote_types(logits.dtype, torch.float32)
        num_classes = max(1, logits.shape[-1])
        num_rows = max(1, BLOCK_ELEMENTS * torch.get_num_threads() // num_classes)
        num_rows = min(num_rows, logits.numel() // num_classes)
        self.scratch = _Scratch.of(num_rows, num_classes, self.dtype)
        background, gamma = parameters.background, parameters.gamma
        self.background = 1.0 if isinstance(background, Tensor) else background
        self.is_steep = not isinstance(gamma, Tensor) and gamma > SMALL_GAMMA
        self.zero = torch.zeros((), dtype=self.dtype)
        self.end = torch.tensor(1 / gamma if self.is_steep else 1.0, dtype=self.dtype)

    def result(self) -> tuple[Tensor, Tensor]:
        """The sum of all losses, and of those in rows that have a class."""
        return (
            torch.tensor(self.total, dtype=self.dtype),
            torch.tensor(self.foreground, dtype=self.dtype),
        )

    def add(
        self, rows: Tensor, targets: Tensor, weights: Tensor | None, gradient: Tensor | None
    ) -> None:
        """Take in ``(R, K)`` logits with ``(R,)`` targets and weights; fill the gradient."""
        marked = MarkedRows.find(targets, rows.shape[-1], self.parameters.ignore_index)
        own = own_classes(rows, marked, self.parameters)
        own = own.times(self.factor if weights is None else self.factor * weights[marked.rows])
        own_total = own.loss.sum(dtype=torch.float64).item()
        self.foreground += own_total + self._negatives_beside(rows, marked, weights)
        self.total += own_total

        step = len(self.scratch.power)
        for index, marks in enumerate(marked.split(len(rows), rows.shape[1], step)):
            at = slice(index * step, (index + 1) * step)
            block = rows[at]
            scratch = self.scratch.first(len(block))
            piece = None if weights is None else weights[at]
            self.total += self._sum_of_negatives(block, marks, piece, scratch)
            if gradient is not None:
                self._write_slopes(gradient[at], scratch)
        if gradient is not None:
            gradient[marked.rows, marked.classes] = own.slope.to(gradient.dtype)
            gradient.index_fill_(0, marked.ignored, 0)

    def _negatives_beside(self, rows: Tensor, marked: MarkedRows, weights: Tensor | None) -> float:
        """The sum over the other classes of the rows that have one.

        Computed a second time for these few rows: to pick them from every block costs more.
        """
        total = 0.0
        step, num_classes = len(self.scratch.power), rows.shape[1]
        for start in range(0, len(marked.rows), step):
            index = marked.rows[start : start + step]
            classes = marked.classes[start : start + step]
            own = torch.arange(len(index)) * num_classes + classes
            piece = None if weights is None else weights[index]
            total += self._sum_of_negatives(
                rows[index], Marks(own, None), piece, self.scratch.first(len(index))
            )
        return total

    def _sum_of_negatives(
        self, block: Tensor, marks: Marks, weights: Tensor | None, scratch: _Scratch
    ) -> float:
        """The sum over one block, marked entries left out; the terms stay in the scratch."""
        if block.dtype != self.dtype or not block.is_contiguous():
            block = scratch.copied.copy_(block)
        power, softplus = scratch.power, scratch.softplus
        for holds_everywhere in (False, True):
            _sigmoid_and_softplus(block, scratch, holds_everywhere=holds_everywhere)
            _raise(scratch.sigmoid, self.parameters.gamma, out=power)
            if isinstance(self.parameters.background, Tensor):
                power.mul_(self.parameters.background)
            if weights is not None:
                power.mul_(weights.unsqueeze(1))
            marks.silence(power)
            marks.silence(softplus)  # too, since 0 · inf is not 0
            total = self._dot(power.view(-1), softplus.view(-1))
            if math.isfinite(total):
                break
        return total * self.background * self.factor

    @staticmethod
    def _dot(one: Tensor, other: Tensor) -> float:
        """Their product summed; a row longer than a block in pieces, since float32 sums drift."""
        limit = BLOCK_ELEMENTS * torch.get_num_threads()
        pieces = zip(torch.split(one, limit), torch.split(other, limit), strict=True)
        return sum(float(a.dot(b)) for a, b in pieces)

    def _write_slopes(self, gradient: Tensor, scratch: _Scratch) -> None:
        """The derivatives of the block that was just added; what is marked must still be put right.

        addcmul onto a zero multiplies two blocks and a number in one pass.
        """
        gamma, softplus = self.parameters.gamma, scratch.softplus
        value = self.background * self.factor
        if self.is_steep:
            assert not isinstance(gamma, Tensor)
            value *= gamma
        else:
            softplus.mul_(gamma)
        bracket = torch.lerp(softplus, self.end, scratch.sigmoid, out=softplus)
        if gradient.dtype == self.dtype and gradient.is_contiguous():
            torch.addcmul(self.zero, scratch.power, bracket, value=value, out=gradient)
        else:
            torch.addcmul(self.zero, scratch.power, bracket, value=value, out=scratch.power)
            gradient.copy_(scratch.power)


def _sigmoid_and_softplus(x: Tensor, scratch: _Scratch, *, holds_everywhere: bool) -> None:
    if holds_everywhere:
        torch.sigmoid(x, out=scratch.sigmoid)
        scratch.softplus.copy_(F.logsigmoid(-x)).neg_()
        return
    exponential = torch.exp(x, out=scratch.power)
    larger = torch.add(exponential, 1, out=scratch.sigmoid)
    _log1p(exponential, larger, scratch.rest, out=scratch.softplus)
    torch.div(exponential, larger, out=scratch.sigmoid)


def _log1p(e: Tensor, larger: Tensor, rest: Tensor, out: Tensor) -> None:
    """``log(1 + e)`` to the last bits, in four passes that together are faster than torch.log1p.

    ``larger`` is 1 + e rounded. What the rounding lost, e - (larger - 1), is found exactly where it
    matters (e < 1), and moves the logarithm by that over ``larger``.
    """
    torch.log(larger, out=out)
    torch.sub(larger, 1, out=rest)
    torch.sub(e, rest, out=rest)
    torch.addcdiv(out, rest, larger, out=out)


def _raise(sigmoid: Tensor, gamma: float | Tensor, out: Tensor) -> None:
    if not isinstance(gamma, Tensor) and gamma == 2:
        torch.mul(sigmoid, sigmoid, out=out)
    else:
        torch.pow(sigmoid, gamma, out=out)
