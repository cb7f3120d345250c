"""The Triton kernel of the focal loss against the plain form in float64."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from retina.losses.focal import focal_loss_sums
from retina.losses.focal_parameters import focal_parameters
from retina.losses.focal_reference import class_index_loss
from tests.cuda.check import Check, Setting  # type: ignore[import-not-found]

IGNORED = -7

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Relative, of the gradient. One unit in the last place of the 16-bit types; in float32 the bare
exp2 and reciprocal of the hardware count."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def example(
    num_classes: int, dtype: torch.dtype, *shape: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, class indices with left-out rows, row weights of either sign."""
    generator = torch.Generator().manual_seed(num_classes)
    x = torch.randn(*shape, num_classes, generator=generator) * 4
    targets = torch.randint(0, num_classes + 2, shape, generator=generator)
    targets[targets == num_classes + 1] = IGNORED
    weights = torch.rand(shape, generator=generator) - 0.2
    return x.to(device, dtype), targets.to(device), weights.to(device)


def compare(
    x: Tensor, targets: Tensor, weights: Tensor | None, alpha: object, gamma: object
) -> float:
    """Total, share and gradient of the kernel; returns the gradient's largest relative error."""
    from retina.losses.fused.triton_kernel import triton_focal_loss

    z = x.detach().double().requires_grad_()
    loss = class_index_loss(z, targets, focal_parameters(alpha, gamma, IGNORED, z)).sum(-1)  # type: ignore[arg-type]
    if weights is not None:
        loss = loss * weights.double()
    (slopes,) = torch.autograd.grad(loss.sum(), z)
    is_class = (targets >= 0) & (targets < x.shape[-1])
    share = loss.detach()[is_class].sum().item()

    gradient, kept = torch.empty_like(x).fill_(torch.nan), x.clone()
    total, foreground = triton_focal_loss(
        x,
        targets,
        focal_parameters(alpha, gamma, IGNORED, x),  # type: ignore[arg-type]
        row_weights=weights,
        gradient=gradient,
    )
    tolerance = 1e-5 * loss.detach().abs().sum().item()  # weights of both signs may cancel
    assert abs(total.item() - loss.sum().item()) <= tolerance, (total, loss.sum())
    assert abs(foreground.item() - share) <= tolerance, (foreground, share)
    smallest = 2**-24 if x.dtype == torch.float16 else 1e-36
    torch.testing.assert_close(gradient.double(), slopes, rtol=TOLERANCES[x.dtype], atol=smallest)
    assert torch.equal(x, kept), "the logits were written over"
    is_large = slopes.abs() > 1e-6 * slopes.abs().max()
    return float(((gradient.double() - slopes).abs() / slopes.abs())[is_large].max())


def check_any_shape(dtype: torch.dtype, setting: Setting) -> str:
    """Odd and even numbers of classes, every form of α and γ, left-out rows, weights."""
    worst, count = 0.0, 0
    for num_classes in (1, 3, 7, 80, 91):
        per_class = torch.linspace(0.1, 0.9, num_classes, device=setting.device)
        # Each form of both once: every pair is compiled by itself, which takes a second.
        pairs = [(None, 0.0), (0.25, 1.0), (0.25, 2.0), (0.25, 0.7), (per_class, 4 * per_class)]
        for alpha, gamma in pairs if num_classes in (3, 80) else pairs[2:3]:
            x, targets, weights = example(num_classes, dtype, 2, 150, device=setting.device)
            worst = max(worst, compare(x, targets, weights, alpha, gamma))
            count += 1
    return f"{count} cases, gradients within {worst:.1e}"


def check_extreme_logits(dtype: torch.dtype, setting: Setting) -> str:
    """Logits up to 1e4 of either sign, for a right and a wrong class."""
    for point in (-1e4, -200.0, -88.0, -17.0, 0.0, 17.0, 88.0, 200.0, 1e4):
        x = torch.tensor([[point, -point]] * 3, device=setting.device, dtype=dtype)
        for gamma in (0.0, 0.5, 2.0):
            compare(x, torch.arange(3, device=setting.device), None, 0.25, gamma)
    return ""


def check_strided_levels(dtype: torch.dtype, setting: Setting) -> str:
    """A head's channels-last output, and slices of a larger tensor, are read as they lie."""
    x, targets, weights = example(5, dtype, 2, 6, 4, 3, device=setting.device)
    head = x.permute(0, 3, 4, 1, 2).reshape(2, 15, 6, 4)
    layouts = {
        "channels last": head.contiguous(memory_format=torch.channels_last)
        .permute(0, 2, 3, 1)
        .view(2, 6, 4, 3, 5),
        "channels first": x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2),
        "a slice of levels": torch.cat([x, x, x], dim=1)[:, 6:12],
        "a slice of classes": torch.cat([x, x], dim=-1)[..., 3:8],
        "expanded": x[:, :, :, :1].expand(-1, -1, -1, 3, -1),
    }
    for strided in layouts.values():
        compare(strided, targets, weights, 0.25, 2.0)
    return ", ".join(layouts)


def check_fast_path(dtype: torch.dtype, setting: Setting) -> str:
    """The loss of a training takes the kernel, and autograd gets its gradient, scaled."""
    from retina.losses.fused import can_fuse

    for in_place in (False, True):
        x, targets, weights = example(91, dtype, 4, 700, device=setting.device)
        leaf = x.clone().requires_grad_()
        logits = leaf * 1  # a leaf may not be given away
        parameters = focal_parameters(0.25, 2.0, IGNORED, logits)
        assert can_fuse(logits, targets, parameters, weights), "the plain form takes its place"
        sums = focal_loss_sums(
            logits, targets, ignore_index=IGNORED, row_weights=weights, in_place=in_place
        )
        (sums.total * 8).backward()  # type: ignore[no-untyped-call]
        z = x.double().requires_grad_()
        loss = class_index_loss(z, targets, focal_parameters(0.25, 2.0, IGNORED, z)).sum(-1)
        (slopes,) = torch.autograd.grad((loss * weights.double()).sum() * 8, z)
        assert leaf.grad is not None
        smallest = 2**-23 if dtype == torch.float16 else 1e-35
        torch.testing.assert_close(
            leaf.grad.double(), slopes, rtol=2 * TOLERANCES[dtype], atol=smallest
        )
    return ""


KERNEL_CHECKS = [
    Check(f"Triton kernel, {what}: {name}", partial(function, dtype), needs_gpu, seconds=90)
    for what, function, needs_gpu in (
        ("any shape", check_any_shape, False),
        ("extreme logits", check_extreme_logits, False),
        ("strided levels", check_strided_levels, False),
        ("taken by the loss", check_fast_path, True),
    )
    for name, dtype in DTYPES.items()
    if not (function is check_extreme_logits and dtype != torch.float32)
]
