r"""Region losses for segmentation: how far the predicted regions are from the true ones.

With the soft counts TP, FN and FP of a class in an image, the Tversky index (Salehi et al. 2017) is

.. math:: TI = \frac{TP + s}{TP + \delta FN + (1 - \delta) FP + s}

and δ = 0.5 is the Dice coefficient (Milletari et al. 2016). The counts come from logits, in float32
at least. Shapes: N images, C channels, any number of spatial dimensions d1, d2, ….

An image without a class has TP = FN = 0: its index is ``s / ((1 - δ) FP + s)``, near 0 with an
almost flat gradient as soon as FP exceeds the tiny default of ``smooth``. Where many images lack a
class, pool the counts (``pool_batch=True``) or raise ``smooth``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from retina.losses.reduction import Reduction, check_reduction, reduced

SMALLEST_BASE = 1e-7
"""Below it a power with an exponent under 1 goes on as a straight line to 0, so that the gradient
of a perfect prediction is finite (the published code clips the probabilities by as much)."""


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth: float = 1e-6,
    include_background: bool = True,
    pool_batch: bool = False,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - Dice coefficient of each class: `tversky_loss` with δ = 0.5.

    The arguments are those of `focal_tversky_loss`. Libraries that write the coefficient as
    (2 TP + s) / (2 TP + FN + FP + s) need twice the ``smooth`` for the same loss.
    """
    return tversky_loss(
        logits,
        targets,
        delta=0.5,
        smooth=smooth,
        include_background=include_background,
        pool_batch=pool_batch,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def tversky_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    delta: float = 0.7,
    smooth: float = 1e-6,
    include_background: bool = True,
    pool_batch: bool = False,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - Tversky index of each class (Salehi et al. 2017): `focal_tversky_loss` with γ = 1."""
    return focal_tversky_loss(
        logits,
        targets,
        delta=delta,
        gamma=1.0,
        smooth=smooth,
        include_background=include_background,
        pool_batch=pool_batch,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def focal_tversky_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    delta: float = 0.7,
    gamma: float = 0.75,
    smooth: float = 1e-6,
    include_background: bool = True,
    pool_batch: bool = False,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """``(1 - TI)^γ`` of each class (Abraham & Khan 2019, whose exponent 1/γ = 3/4 is γ here).

    Args:
        logits: ``(N, 1, d1, …)`` of the foreground (sigmoid), or ``(N, C, d1, …)`` of C ≥ 2 classes
            of which channel 0 is the background (softmax). Independent labels: fold them into the
            batch, ``(N·C, 1, d1, …)``.
        targets: integers ``(N, d1, …)``, with one channel 0 and 1; or floats of the logits' shape,
            the part of each pixel that belongs to the class.
        delta: the weight of the false negatives in (0, 1); false positives have ``1 - delta``.
        gamma: the exponent, > 0. Below 1 it raises the gradient of a class that is nearly right and
            lowers that of one that is nearly all wrong; above 1 the other way round.
        smooth: the s of TI, > 0.
        include_background: whether channel 0 of C ≥ 2 classes has a loss too.
        pool_batch: count over all images of the batch (of this process) instead of each by itself.
        ignore_index: the integer target whose pixels count for nothing.
        reduction: ``none`` returns ``(N, C)``, C without the background where that is left out,
            and N = 1 with ``pool_batch``; ``mean`` divides by the number of these.

    Raises:
        ValueError: delta, gamma, smooth or the shapes make no sense.
    """
    check_region_options(delta=delta, smooth=smooth, gamma=gamma, reduction=reduction)
    regions = read_regions(logits, targets, ignore_index, pool_batch)
    loss = power(tversky_error(regions, delta, smooth), gamma)
    if not include_background and loss.shape[1] > 1:
        loss = loss[:, 1:]
    return reduced(loss, reduction, loss.numel())


@dataclass(frozen=True, slots=True)
class Regions:
    """A batch made ready for counting: all spatial dimensions are one, L.

    Attributes:
        logits: ``(N, C, L)``, float32 at least.
        wanted: ``(N, C, L)``, how much of each pixel is of the class; 0 where ignored.
        counted: ``(N, 1, L)``, 1 or, where ignored, 0.
    """

    logits: Tensor
    wanted: Tensor
    counted: Tensor


def read_regions(
    logits: Tensor, targets: Tensor, ignore_index: int | None, pool_batch: bool
) -> Regions:
    """The batch in one shape, whatever form the targets have.

    Raises:
        ValueError: the shapes do not fit, or float targets come with an ``ignore_index``.
    """
    soft = targets.is_floating_point()
    wanted_shape = logits.shape if soft else logits.shape[:1] + logits.shape[2:]
    if logits.ndim < 3 or logits.shape[1] == 0 or targets.shape != wanted_shape:
        raise ValueError(
            f"targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}: logits are "
            "(N, C, d1, …), targets integers (N, d1, …) or floats of the logits' shape"
        )
    if soft and ignore_index is not None:
        raise ValueError("ignore_index works with integer targets; these are floats")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = logits.flatten(2)  # (N, C, L)
    if soft:
        wanted = targets.to(logits.dtype).flatten(2)
        counted = torch.ones_like(logits[:, :1])
    else:
        index = targets.long().flatten(1).unsqueeze(1)  # (N, 1, L)
        is_counted = torch.ones_like(index, dtype=torch.bool)
        if ignore_index is not None:
            is_counted = index != ignore_index
        counted = is_counted.to(logits.dtype)
        logits = torch.where(is_counted, logits, 0.0)  # no NaN of an ignored pixel comes through
        shape = (logits.shape[0], max(2, logits.shape[1]), logits.shape[2])
        # Not one_hot: a label that is no class (255 in a 0/1 mask) must fail, as in cross_entropy.
        one_hot = logits.new_zeros(shape).scatter(1, torch.where(is_counted, index, 0), counted)
        wanted = one_hot[:, 1:] if logits.shape[1] == 1 else one_hot
    if pool_batch:
        logits, wanted, counted = (
            part.transpose(0, 1).flatten(1).unsqueeze(0) for part in (logits, wanted, counted)
        )
    return Regions(logits, wanted, counted)


def tversky_error(regions: Regions, delta: float, smooth: float) -> Tensor:
    """1 - TI, ``(N, C)``, as the quotient that it is and not as a difference from 1."""
    probability, rest = _both_sides(regions.logits)
    missed = (regions.wanted * rest).sum(2)
    invented = ((regions.counted - regions.wanted) * probability).sum(2)
    found = regions.wanted.sum(2) - missed
    wrong = delta * missed + (1 - delta) * invented
    return wrong / (found + wrong + smooth)


def _both_sides(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The p and 1 - p of each class, with all their digits and gradients where p rounds to 1."""
    if logits.shape[1] == 1:
        return torch.sigmoid(logits), torch.sigmoid(-logits)
    probability = logits.softmax(1)
    top = logits.detach().argmax(1, keepdim=True)  # only this one can come near 1
    others = probability.scatter(1, top, 0.0).sum(1, keepdim=True)
    return probability, (1 - probability).scatter(1, top, others)


def power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` for bases in 0..1, with a straight line below `SMALLEST_BASE`."""
    if exponent == 1:
        return base
    is_small = base < SMALLEST_BASE
    line = base * SMALLEST_BASE ** (exponent - 1)
    return torch.where(is_small, line, torch.where(is_small, 1.0, base).pow(exponent))


def check_region_options(
    *, delta: float = 0.5, smooth: float, gamma: float = 1.0, reduction: str
) -> None:
    """Raise ValueError for an option that makes no sense."""
    check_reduction(reduction)
    if not 0 < delta < 1:
        raise ValueError(
            f"delta must be between 0 and 1, is {delta}: it weighs false negatives against false "
            "positives, 0.5 both the same"
        )
    if not 0 < smooth < math.inf:
        raise ValueError(
            f"smooth must be above 0 and finite, is {smooth}: at 0 empty regions divide 0 by 0"
        )
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be above 0 and finite, is {gamma}")
