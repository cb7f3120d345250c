"""Which backend computes, and how its gradient enters autograd."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version

from retina.losses.eager import is_plain, runs_eagerly
from retina.losses.focal_parameters import FocalParameters
from retina.losses.focal_reference import class_index_loss
from retina.losses.fused.chunked import chunked_focal_loss
from retina.wording import first_line

_ON_CPU = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_ON_CUDA = (torch.float32, torch.bfloat16, torch.float16)

_given_away: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
"""The gradients that lie where logits were, until their backward pass, by their first address."""


def can_fuse(
    logits: Tensor, targets: Tensor, parameters: FocalParameters, row_weights: Tensor | None
) -> bool:
    """Whether the fast path knows this case; the reference form knows every case.

    It does not under torch.compile, torch.func and forward-mode differentiation, for tensor
    subclasses, on other devices than the CPU and CUDA, and where anything but the logits is to be
    differentiated.
    """
    if not runs_eagerly() or forward_ad._current_level >= 0:
        return False
    tensors = [logits, targets] if row_weights is None else [logits, targets, row_weights]
    if not all(is_plain(tensor) and tensor.device == logits.device for tensor in tensors):
        return False
    if parameters.learn or (row_weights is not None and row_weights.requires_grad):
        return False
    if logits.device.type == "cpu":
        return logits.dtype in _ON_CPU
    return logits.device.type == "cuda" and logits.dtype in _ON_CUDA and _has_triton(logits.device)


@cache
def _has_triton(device: torch.device) -> bool:
    """Whether there is a Triton and a GPU for it, and the two come to a running kernel.

    Triton needs a C compiler, headers and a cache to write to: whether they do can only be tried.
    """
    if importlib.util.find_spec("triton") is None or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        _try_triton(device)
    except Exception as error:  # of the import, the compiler, the driver: of any kind
        warnings.warn(
            f"the focal loss's Triton kernel does not run on {device} ({first_line(error)}), so "
            "the plain form takes its place, which is slower and needs more memory; Triton calls a "
            "C compiler (gcc, clang, or what CC names)",
            stacklevel=2,
        )
        return False
    return True


def _try_triton(device: torch.device) -> None:
    """Compile and run the kernel on one row."""
    from retina.losses.fused.triton_kernel import triton_focal_loss

    logits = torch.zeros(1, 8, device=device)
    targets = torch.zeros(1, dtype=torch.int64, device=device)
    parameters = FocalParameters(0.25, 0.75, 2.0, None)
    with torch.no_grad():
        triton_focal_loss(logits, targets, parameters, gradient=torch.empty_like(logits))


def fused_focal_sums(
    logits: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    *,
    row_weights: Tensor | None = None,
    scale: Tensor | None = None,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """The summed loss, differentiable by the logits, and the foreground's share of it.

    Args:
        logits: ``(..., K)``, for which `can_fuse` holds.
        targets: integers ``(...)``.
        parameters: α and γ.
        row_weights: ``(...)`` factors of the rows.
        scale: ``()`` factor of everything.
        in_place: let the gradient take the storage of the logits.
    """
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return _compute(logits, targets, parameters, row_weights, scale, None)
    if in_place:
        check_in_place(logits)
    result: tuple[Tensor, Tensor] = _FusedFocalLoss.apply(
        logits, targets, parameters, row_weights, scale, in_place
    )
    return result


def check_in_place(logits: Tensor) -> None:
    """Raise ValueError where the logits' storage must not be given to the gradient."""
    # A view of a leaf writes over the leaf. Of a leaf without a gradient too: whoever writes logits
    # into a buffer gets a buffer that is no leaf any more, so this one holds something else.
    if logits.is_leaf or (logits._base is not None and logits._base.is_leaf):
        raise ValueError(
            "in_place=True would overwrite a leaf tensor with its own gradient; use it for logits "
            "that a network computed, and that nothing reads after the loss"
        )
    if _may_overlap(logits):
        raise ValueError(
            "in_place=True needs logits of which every element has its own memory, these are "
            "expanded or overlap; pass in_place=False"
        )
    if logits.numel() and logits.data_ptr() in _given_away:
        raise ValueError(
            "in_place=True: these logits were given away by an earlier call, whose gradient lies "
            "in their place and waits for its backward pass; pass in_place=False in both"
        )


def _may_overlap(tensor: Tensor) -> bool:
    """Whether two elements may share memory: a stride is within the reach of the smaller ones."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _compute(
    logits: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    row_weights: Tensor | None,
    scale: Tensor | None,
    gradient: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if logits.device.type == "cuda":
        from retina.losses.fused.triton_kernel import triton_focal_loss as backend
    else:
        backend = chunked_focal_loss
    with torch.no_grad():
        return backend(
            logits, targets, parameters, row_weights=row_weights, scale=scale, gradient=gradient
        )


class _FusedFocalLoss(torch.autograd.Function):
    """The gradient is written in the forward pass, and only scaled in the backward pass.

    Unscaled gradients of easy negatives are below what float16 can hold, which is why a loss is
    scaled in that dtype; so there the backward pass computes them, with the scale. It does so too
    when it runs a second time (``retain_graph``), since the first has given its tensor away. A
    backward pass that is itself to be differentiated (``create_graph``) takes the reference form.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        parameters: FocalParameters,
        row_weights: Tensor | None,
        scale: Tensor | None,
        in_place: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.parameters, ctx.in_place = parameters, in_place
        ctx.gradient = None
        is_late = logits.dtype == torch.float16
        if not is_late:
            ctx.gradient = logits.detach() if in_place else torch.empty_like(logits)
        if in_place and ctx.gradient is not None:
            _given_away[logits.data_ptr()] = ctx.gradient
        # With in_place the logits are gone, unless they are still to be read in the backward pass.
        kept = None if in_place and not is_late else logits
        ctx.save_for_backward(kept, targets, row_weights, scale)
        total, foreground = _compute(logits, targets, parameters, row_weights, scale, ctx.gradient)
        if in_place and not is_late:
            increment_version(logits)
        ctx.mark_non_differentiable(foreground)
        return total, foreground

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor | None, _: Tensor | None) -> Any:
        nothing = (None,) * 5
        if grad_total is None:
            return None, *nothing
        if torch.is_grad_enabled():
            return _differentiable_gradient(ctx, grad_total), *nothing
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None:
            return _scaled(gradient, grad_total), *nothing
        logits, targets, row_weights, scale = _saved(ctx)
        gradient = logits.detach() if ctx.in_place else torch.empty_like(logits)
        grad_total = grad_total if scale is None else grad_total * scale
        _compute(logits, targets, ctx.parameters, row_weights, grad_total, gradient)
        if ctx.in_place:
            increment_version(logits)
        return gradient, *nothing


def _saved(ctx: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    logits, targets, row_weights, scale = ctx.saved_tensors
    if logits is None:
        raise RuntimeError(
            "focal loss: with in_place=True the gradient took the place of the logits, so there is "
            "one backward pass and no second derivative; pass in_place=False for either"
        )
    return logits, targets, row_weights, scale


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Times the gradient from outside, in place; the usual 1 costs nothing."""
    if gradient.device.type == "cuda":
        from retina.losses.fused.triton_kernel import scale_in_place

        return scale_in_place(gradient, factor)
    return gradient if factor.item() == 1 else gradient.mul_(factor)


def _differentiable_gradient(ctx: Any, grad_total: Tensor) -> Tensor:
    logits, targets, row_weights, scale = _saved(ctx)
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = class_index_loss(x, targets, ctx.parameters)
    if row_weights is not None:
        loss = loss * row_weights.unsqueeze(-1)
    total = loss.sum() if scale is None else loss.sum() * scale
    (gradient,) = torch.autograd.grad(total, logits, grad_total, create_graph=True)
    return gradient
