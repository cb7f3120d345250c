r"""The sigmoid focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 5).

.. math:: FL(p_t) = -\alpha_t (1 - p_t)^\gamma \log(p_t)

p is the sigmoid of a logit; p_t is p for a target 1 and 1 - p for a target 0, α_t is α and 1 - α.
γ = 0 is (α-weighted) binary cross-entropy. At γ = 2 an example with p_t = 0.9 loses a factor of 100
against cross-entropy, one with p_t = 0.5 a factor of 4.

Sums and means of class indices take the fast path of `retina.losses.fused` on a CPU and on CUDA;
everything else, and every transform of torch (compile, func, forward mode), takes the plain form of
`retina.losses.focal_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retina.losses.focal_parameters import (
    DEFAULT_ALPHA,
    DEFAULT_GAMMA,
    Alpha,
    FocalParameters,
    Gamma,
    focal_parameters,
)
from retina.losses.focal_reference import class_index_loss, dense_loss
from retina.losses.focal_targets import (
    are_class_indices,
    check_class_indices,
    check_dense_targets,
    widened,
)
from retina.losses.fused import can_fuse, fused_focal_sums
from retina.losses.reduction import Reduction, check_reduction, reduced


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha = DEFAULT_ALPHA,
    gamma: Gamma = DEFAULT_GAMMA,
    reduction: Reduction = "none",
    ignore_index: int | None = None,
) -> Tensor:
    """The focal loss of independent binary decisions: binary, multi-label or one of K.

    The shape of the targets says what they are, and never leaves a choice:

    - the logits' own shape: one target for each element. Floats in 0..1, hard or soft (a soft
      target y gives y of the loss of a 1 and 1 - y of that of a 0), or bools or integers 0 and 1.
    - the logits' shape without its last dimension K, integers: the class index of each row,
      ``0 .. K-1`` a class and ``K`` the background, all of whose K targets are 0. No one-hot tensor
      is made. With K = 1 this means 0 for the class and 1 for the background: labels that say 1
      for the positives belong to logits without that last dimension (``logits.squeeze(-1)``).

    Args:
        logits: any floating tensor; float16 and bfloat16 are computed, and returned, in float32.
        targets: see above.
        alpha: the weight α_t of targets 1, in (0, 1); targets 0 get ``1 - alpha``. A sequence or
            tensor holds one weight for each entry of the last dimension (a tensor on the logits'
            device spares a GPU the copy in every call). None is off (α_t = 1 for both), and so is
            1: torchvision's function gives every target 0 exactly no loss at ``alpha=1``, which is
            never wanted.
        gamma: the focusing parameter, ≥ 0, a number or one for each entry of the last dimension. A
            tensor of it, or of alpha, that requires a gradient gets one.
        reduction: ``none`` returns ``(..., K)``, the logits' shape, for every kind of target, with
            0 where a target is left out; ``sum`` a scalar; ``mean`` the sum divided by the number
            of elements not left out (a row of K elements for each class index), 0 if there are
            none.
        ignore_index: elements, or rows of class indices, with this target are left out: no loss,
            no gradient, no part in the mean. None leaves out none.

    Returns:
        The loss in float32 (float64 for float64 logits). Differentiable any number of times, in
        forward mode, under torch.compile and torch.func; second derivatives of the fast path are
        taken through the plain form.

    Raises:
        ValueError: alpha, gamma, the reduction or the shapes make no sense, or a target is out of
            range. Only a CPU's values are looked at; class indices on CUDA fail a device assertion
            instead, so that nothing waits.
    """
    check_reduction(reduction)
    targets = widened(targets)
    parameters = focal_parameters(alpha, gamma, ignore_index, logits)
    if not are_class_indices(logits, targets):
        return _dense(logits, targets, parameters, reduction)
    check_class_indices(targets, logits.shape[-1], ignore_index)
    if reduction != "none" and can_fuse(logits, targets, parameters, None):
        scale = None
        if reduction == "mean":
            dtype = torch.promote_types(logits.dtype, torch.float32)
            scale = 1 / _count(targets, logits.shape[-1], ignore_index).to(dtype)
        return fused_focal_sums(logits, targets, parameters, scale=scale)[0]
    loss = class_index_loss(_at_least_float32(logits), targets, parameters)
    return reduced(loss, reduction, _count(targets, logits.shape[-1], ignore_index))


def _dense(
    logits: Tensor, targets: Tensor, parameters: FocalParameters, reduction: Reduction
) -> Tensor:
    check_dense_targets(targets, parameters.ignore_index)
    x = _at_least_float32(logits)
    y = targets.to(x.dtype)
    counted = None
    if parameters.ignore_index is not None:
        counted = targets != parameters.ignore_index
        x, y = torch.where(counted, x, 0.0), torch.where(counted, y, 0.0)
    loss = dense_loss(x, y, parameters)
    if counted is not None:
        loss = torch.where(counted, loss, 0.0)
    return reduced(loss, reduction, loss.numel() if counted is None else counted.sum())


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _count(targets: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """The number of elements that are not left out, at least 1."""
    if ignore_index is None:
        return torch.full((), max(1, targets.numel() * num_classes), device=targets.device)
    return ((targets != ignore_index).sum() * num_classes).clamp(min=1)


@dataclass(frozen=True, slots=True)
class FocalSums:
    """The summed focal loss of class indices.

    Attributes:
        total: ``()``, to be differentiated with respect to the logits.
        foreground: ``()``, the share of ``total`` that comes from rows whose target is a class
            (all K entries of such a row); not differentiable.
    """

    total: Tensor
    foreground: Tensor


def focal_loss_sums(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha = DEFAULT_ALPHA,
    gamma: Gamma = DEFAULT_GAMMA,
    ignore_index: int | None = None,
    row_weights: Tensor | None = None,
    in_place: bool = False,
) -> FocalSums:
    """The focal loss of class indices, summed, and how much of it comes from the foreground.

    Args:
        logits: ``(..., K)``.
        targets: integers ``(...)``: ``0 .. K-1`` the class, ``K`` the background.
        alpha: as in `sigmoid_focal_loss`.
        gamma: as in `sigmoid_focal_loss`.
        ignore_index: the target whose row has no loss.
        row_weights: ``(...)`` floats that the rows' losses are multiplied with.
        in_place: lets the fast path write the gradient over the logits, which then must not be
            read again: no memory beyond the logits, one backward pass, no second derivative.
            Whoever else needs them for a backward pass fails with autograd's message about an
            in-place operation. Give them away once: a second call on the same logits is refused
            while the first one waits for its backward pass, but one on other logits that share a
            part of their memory is not noticed and makes both gradients wrong. Without effect in
            the plain form.

    Raises:
        ValueError: as in `sigmoid_focal_loss`, or the logits cannot be given away.
    """
    targets = widened(targets)
    parameters = focal_parameters(alpha, gamma, ignore_index, logits)
    if not are_class_indices(logits, targets):
        raise ValueError(
            f"focal_loss_sums takes class indices of shape {tuple(logits.shape[:-1])}, not one "
            f"target for each of the logits {tuple(logits.shape)}; sigmoid_focal_loss takes both"
        )
    check_class_indices(targets, logits.shape[-1], ignore_index)
    if row_weights is not None and row_weights.shape != targets.shape:
        raise ValueError(
            f"row_weights {tuple(row_weights.shape)} must have the shape of the targets "
            f"{tuple(targets.shape)}"
        )
    return sums_of_class_indices(logits, targets, parameters, row_weights, in_place=in_place)


def sums_of_class_indices(
    logits: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    row_weights: Tensor | None,
    *,
    in_place: bool = False,
) -> FocalSums:
    """`focal_loss_sums` of inputs that were checked, with parameters of any kind."""
    if can_fuse(logits, targets, parameters, row_weights):
        total, foreground = fused_focal_sums(
            logits, targets, parameters, row_weights=row_weights, in_place=in_place
        )
        return FocalSums(total, foreground)
    per_row = class_index_loss(_at_least_float32(logits), targets, parameters).sum(dim=-1)
    if row_weights is not None:
        per_row = per_row * row_weights
    is_class = targets < logits.shape[-1]  # left-out rows have no loss, whatever their number
    return FocalSums(per_row.sum(), torch.where(is_class, per_row.detach(), 0.0).sum())
