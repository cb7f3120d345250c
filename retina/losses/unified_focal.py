r"""The Unified Focal Loss for segmentation (Yeung et al. 2021).

"Unified Focal loss: Generalising Dice and cross entropy-based losses to handle class imbalanced
medical image segmentation", with one γ and one δ for both of its parts:

.. math:: L = \lambda L_{FT} + (1 - \lambda) L_F

Its exponents are those of the authors' code (github.com/mlyg/unified-focal-loss):

========== =========================================== ==========================================
part       symmetric                                   asymmetric
========== =========================================== ==========================================
focal      (1 - p_t)^γ on every class                  (1 - p_t)^γ on the background alone
Tversky    (1 - TI)^(1 - γ) of every class             (1 - TI)^(1 - γ) of the foreground alone
========== =========================================== ==========================================

The asymmetric form takes from the background and gives to the foreground. (For the symmetric
focal part the paper prints the exponent 1 - γ, the code has γ: the same at the default of 0.5.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from retina.losses.reduction import Reduction, reduced
from retina.losses.region import (
    Regions,
    check_region_options,
    power,
    read_regions,
    tversky_error,
)
from retina.losses.softmax_focal import softmax_focal_loss


def unified_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    asymmetric: bool = True,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    smooth: float = 1e-7,
    pool_batch: bool = False,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal Tversky and focal loss in one.

    Args:
        logits: ``(N, 1, d1, …)`` of the foreground (sigmoid), or ``(N, C, d1, …)`` of C ≥ 2 classes
            of which channel 0 is the background (softmax) and all others are foreground.
        targets: integers ``(N, d1, …)``, with one channel 0 and 1; or floats of the logits' shape.
        asymmetric: whether background and foreground are treated differently (see above).
        weight: λ in 0..1, the share of the Tversky part.
        delta: in (0, 1): the weight of false negatives in TI, and of the foreground in the focal
            part, where the background has ``1 - delta``.
        gamma: at least 0 and below 1: 0 is Tversky loss and weighted cross-entropy, and the focus
            grows with it.
        smooth: the s of TI, > 0.
        pool_batch: count over all images of the batch (of this process) instead of each by itself.
        ignore_index: the integer target whose pixels count for nothing.
        reduction: ``none`` returns ``(N,)``: of each image the mean of the Tversky part over the
            classes and the mean of the focal part over the pixels that are not ignored (N = 1 with
            ``pool_batch``); ``mean`` divides the sum of these by N.

    Raises:
        ValueError: a parameter or the shapes make no sense.
    """
    check_unified_options(weight, delta, gamma, smooth, reduction)
    regions = read_regions(logits, targets, ignore_index, pool_batch)
    if regions.logits.shape[1] == 1:
        regions = _with_background(regions)
    tversky = _tversky_part(tversky_error(regions, delta, smooth), gamma, asymmetric)
    focal = _focal_part(regions, delta, gamma, asymmetric)
    loss = weight * tversky + (1 - weight) * focal
    return reduced(loss, reduction, loss.numel())


def check_unified_options(
    weight: float, delta: float, gamma: float, smooth: float, reduction: str
) -> None:
    """Raise ValueError for an option that makes no sense."""
    check_region_options(delta=delta, smooth=smooth, reduction=reduction)
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be between 0 and 1, is {weight}")
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be at least 0 and below 1, is {gamma}: (1 - TI)^(1 - γ)")


def _with_background(regions: Regions) -> Regions:
    """Two classes from one: softmax of (0, z) is the sigmoid of z."""
    return Regions(
        logits=torch.cat([torch.zeros_like(regions.logits), regions.logits], dim=1),
        wanted=torch.cat([regions.counted - regions.wanted, regions.wanted], dim=1),
        counted=regions.counted,
    )


def _tversky_part(error: Tensor, gamma: float, asymmetric: bool) -> Tensor:
    """``(N,)`` from 1 - TI ``(N, C)``."""
    focused = power(error, 1 - gamma)
    if asymmetric:
        focused = torch.cat([error[:, :1], focused[:, 1:]], dim=1)
    return focused.mean(1)


def _focal_part(regions: Regions, delta: float, gamma: float, asymmetric: bool) -> Tensor:
    """``(N,)``, the mean over the pixels that are not ignored."""
    background = regions.logits.new_ones(1)  # made on the device: nothing is copied there
    foreground = regions.logits.new_ones(regions.logits.shape[1] - 1)
    per_pixel = softmax_focal_loss(
        regions.logits,
        regions.wanted,
        gamma=torch.cat([gamma * background, (0.0 if asymmetric else gamma) * foreground]),
        class_weights=torch.cat([(1 - delta) * background, delta * foreground]),
    )  # (N, L); an ignored pixel wants no class and has no loss
    return per_pixel.sum(1) / regions.counted.sum((1, 2)).clamp(min=1)
