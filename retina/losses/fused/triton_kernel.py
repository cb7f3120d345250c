"""The focal loss of class indices and its gradient on CUDA: the logits are read once.

The bound is memory: each logit is read and each derivative written, nothing else has the logits'
size. At 4.3 TB/s and bfloat16 that leaves about 30 instructions for an element, of which few may
take the special-function unit, so

- a program takes groups of up to 8 neighbouring logits of one row: row, target and weight are
  worked out once for each group, and a group is one 16-byte access;
- log(1 + e) of e = exp(-|z|) in 0..1 is a polynomial (minimax in the relative error: 8e-6 at
  degree 5 for 16-bit logits, 3e-8 at degree 8 for float32). The hardware's logarithm is no cheaper,
  and has no relative accuracy next to 1, where the easy negatives are.

Each program writes its own sum and torch adds them up: no atomics, the same bits in every run.
The formulas are those of `retina.losses.focal_reference`. With TRITON_INTERPRET=1 set before Triton
is imported the same source runs on CPU tensors, which is how it is tested without a GPU.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from retina.losses.focal_parameters import FocalParameters

BLOCK_ELEMENTS = 2048
"""Logits per program: 16 for each thread of four warps, two accesses of 16 bytes in flight."""

MAX_GROUPS = 2**31 - BLOCK_ELEMENTS
"""Groups per launch: they are counted in 32 bits, up to the end of the last program."""

# How γ and α enter the kernel.
GAMMA_ZERO, GAMMA_ONE, GAMMA_TWO, GAMMA_ANY, GAMMA_PER_CLASS = range(5)
ALPHA_OFF, ALPHA_NUMBER, ALPHA_PER_CLASS = range(3)


@triton.jit
def _exp2(x, on_gpu: tl.constexpr):
    """``2 ** x`` for x ≤ 0: the bare instruction, results below 1e-38 are 0."""
    if on_gpu:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp2(x)


@triton.jit
def _reciprocal(x, on_gpu: tl.constexpr):
    """``1 / x`` for x in 1..2: the bare instruction, a division would first guard its range."""
    if on_gpu:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1.0 / x


@triton.jit
def _log1p_quotient(e, is_short: tl.constexpr):
    """``log(1 + e) / e`` for e in 0..1, by Horner's rule."""
    if is_short:
        p = -0.023869149386882782
        p = p * e + 0.10122227668762207
        p = p * e - 0.21004867553710938
        p = p * e + 0.3252066671848297
        p = p * e - 0.4993613660335541
        p = p * e + 0.9999915957450867
    else:
        p = 0.0052326940931379795
        p = p * e - 0.029505237936973572
        p = p * e + 0.07822594791650772
        p = p * e - 0.13663245737552643
        p = p * e + 0.19106006622314453
        p = p * e - 0.2484298199415207
        p = p * e + 0.3331909775733948
        p = p * e - 0.4999949336051941
        p = p * e + 0.9999999403953552
    return p


@triton.jit
def _focal_kernel(
    logits,
    targets,
    gradient,
    row_weights,
    scale,
    foregrounds,
    backgrounds,
    gammas,
    totals,
    shares,
    num_groups,
    foreground,
    background,
    gamma,
    ignore_index,
    row_stride,
    column_stride,
    gradient_row_stride,
    gradient_column_stride,
    weight_stride,
    NUM_CLASSES: tl.constexpr,
    VECTOR: tl.constexpr,
    GROUPS: tl.constexpr,
    IS_DENSE: tl.constexpr,
    ALPHA: tl.constexpr,
    GAMMA: tl.constexpr,
    HAS_IGNORED: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_GRADIENT: tl.constexpr,
    IS_SHORT: tl.constexpr,
    ON_GPU: tl.constexpr,
):
    """Loss and gradient of ``GROUPS`` groups of ``VECTOR`` neighbouring logits."""
    program = tl.program_id(0)
    group = program * GROUPS + tl.arange(0, GROUPS)
    lane = tl.arange(0, VECTOR)
    exists = group < num_groups
    row = group // (NUM_CLASSES // VECTOR)
    first = (group % (NUM_CLASSES // VECTOR)) * VECTOR  # column of the group's first logit
    column = first[:, None] + lane[None, :]
    far_row = row.to(tl.int64)

    target = tl.load(targets + far_row, mask=exists, other=NUM_CLASSES)
    counted = exists
    if HAS_IGNORED:
        counted = exists & (target != ignore_index)
    weight = tl.where(counted, 1.0, 0.0)
    if HAS_WEIGHTS:
        given = tl.load(row_weights + far_row * weight_stride, mask=counted, other=0.0)
        weight = weight * given.to(tl.float32)
    if HAS_SCALE:
        weight = weight * tl.load(scale).to(tl.float32)

    if IS_DENSE:
        at = group.to(tl.int64)[:, None] * VECTOR + lane[None, :]
        gradient_at = at
    else:
        far_column = column.to(tl.int64)
        at = far_row[:, None] * row_stride + far_column * column_stride
        gradient_at = far_row[:, None] * gradient_row_stride + far_column * gradient_column_stride
    x = tl.load(logits + at, mask=counted[:, None], other=0.0).to(tl.float32)

    is_own = (target - first).to(tl.int32)[:, None] == lane[None, :]
    z = tl.where(is_own, -x, x)  # the logit of the wrong decision
    # dz/dx is in the sign of the factor, so that each element looks at is_own in one place only.
    if ALPHA == 0:
        factor = tl.where(is_own, -weight[:, None], weight[:, None])
    elif ALPHA == 1:
        own_factor, other_factor = -foreground * weight, background * weight
        factor = tl.where(is_own, own_factor[:, None], other_factor[:, None])
    else:
        inside = exists[:, None] & (column < NUM_CLASSES)
        own_factor = tl.load(foregrounds + column, mask=inside, other=0.0)
        other_factor = tl.load(backgrounds + column, mask=inside, other=0.0)
        factor = weight[:, None] * tl.where(is_own, -own_factor, other_factor)

    e = _exp2(tl.abs(z) * -1.4426950408889634, ON_GPU)
    quotient = _log1p_quotient(e, IS_SHORT)
    larger = _reciprocal(1.0 + e, ON_GPU)
    smaller = e * larger
    miss = tl.where(z > 0, larger, smaller)  # 1 - p_t
    hit = tl.where(z > 0, smaller, larger)  # p_t
    cross_entropy = quotient * e + tl.maximum(z, 0.0)

    if GAMMA == 0:
        faded = factor
        slope = faded * miss
    elif GAMMA == 1:
        faded = factor * miss
        slope = faded * (miss + hit * cross_entropy)
    elif GAMMA == 2:
        faded = factor * (miss * miss)
        slope = faded * (miss + 2.0 * (hit * cross_entropy))
    else:
        power = gamma
        if GAMMA == 4:
            power = tl.load(gammas + column, mask=exists[:, None], other=0.0)
        log_miss = tl.minimum(z, 0.0) - quotient * e
        faded = factor * _exp2(power * (log_miss * 1.4426950408889634), ON_GPU)
        slope = faded * (miss + power * (hit * cross_entropy))
    if HAS_GRADIENT:
        tl.store(gradient + gradient_at, slope.to(gradient.dtype.element_ty), mask=exists[:, None])

    of_group = tl.sum(tl.abs(faded) * cross_entropy, axis=1)
    of_group = tl.where(weight < 0, -of_group, of_group)
    is_class = counted & (target < NUM_CLASSES)
    tl.store(totals + program, tl.sum(of_group, axis=0))
    tl.store(shares + program, tl.sum(tl.where(is_class, of_group, 0.0), axis=0))


@triton.jit
def _scale_kernel(values, factor, count, BLOCK: tl.constexpr):
    """Multiplies in place, unless the factor is 1; the host does not learn which."""
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        start = tl.program_id(0).to(tl.int64) * BLOCK
        while start < count:
            at = start + tl.arange(0, BLOCK)
            value = tl.load(values + at, mask=at < count, other=0.0).to(tl.float32)
            tl.store(values + at, (value * by).to(values.dtype.element_ty), mask=at < count)
            start += step


def triton_focal_loss(
    logits: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    *,
    row_weights: Tensor | None = None,
    scale: Tensor | None = None,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `retina.losses.fused.chunked.chunked_focal_loss`, on CUDA and without float64.

    Rows may have any stride, so that channels-last views of a head's output are read as they lie.
    """
    if logits.numel() == 0:
        return logits.new_zeros((), dtype=torch.float32), logits.new_zeros((), dtype=torch.float32)
    flat = targets.reshape(-1)
    weights = None if row_weights is None else row_weights.reshape(-1)
    sums = []
    start = 0
    for rows, written in _as_rows(logits, gradient):
        num_classes = rows.shape[1]
        groups_per_row = num_classes // _vector(num_classes, rows.element_size())
        step = MAX_GROUPS // groups_per_row
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            slopes = None if written is None else written[first : first + step]
            at = slice(start, start + len(block))
            piece = None if weights is None else weights[at]
            sums.append(_launch(block, flat[at], parameters, piece, scale, slopes))
            start += len(block)
    total, foreground = torch.cat(sums, dim=1).sum(dim=1, dtype=torch.float64).float().unbind()
    return total, foreground


def _as_rows(logits: Tensor, gradient: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Both as ``(rows, K)``: one view, one for each entry of the first dimension, or a copy."""
    num_classes = logits.shape[-1]
    both = [logits] if gradient is None else [logits, gradient]
    if all(_is_viewable(tensor) for tensor in both):
        views = [tensor.view(-1, num_classes) for tensor in both]
        yield views[0], None if gradient is None else views[1]
    elif all(_is_viewable(tensor[0]) for tensor in both):
        for index in range(logits.shape[0]):
            views = [tensor[index].view(-1, num_classes) for tensor in both]
            yield views[0], None if gradient is None else views[1]
    else:
        rows = logits.reshape(-1, num_classes)
        written = None if gradient is None else torch.empty_like(rows)
        yield rows, written
        if gradient is not None and written is not None:
            gradient.copy_(written.view(gradient.shape))


def _is_viewable(tensor: Tensor) -> bool:
    """Whether all dimensions but the last can be flattened to one stride."""
    strides, shape = tensor.stride()[:-1], tensor.shape[:-1]
    kept = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    return all(a[1] == b[0] * b[1] for a, b in pairwise(kept))


def _launch(
    rows: Tensor,
    targets: Tensor,
    parameters: FocalParameters,
    weights: Tensor | None,
    scale: Tensor | None,
    gradient: Tensor | None,
) -> Tensor:
    """``(2, programs)`` float32: the sum and the foreground's share of each program."""
    num_classes = rows.shape[1]
    vector = _vector(num_classes, rows.element_size())
    groups = BLOCK_ELEMENTS // vector
    num_groups = rows.numel() // vector
    programs = triton.cdiv(num_groups, groups)
    sums = torch.empty(2, programs, dtype=torch.float32, device=rows.device)
    foreground, background, gamma = parameters.foreground, parameters.background, parameters.gamma
    written = rows if gradient is None else gradient
    with torch.cuda.device_of(rows):
        _focal_kernel[(programs,)](
            rows,
            targets,
            written,
            rows if weights is None else weights,
            rows if scale is None else scale,
            foreground.contiguous() if isinstance(foreground, Tensor) else rows,
            background.contiguous() if isinstance(background, Tensor) else rows,
            gamma.contiguous() if isinstance(gamma, Tensor) else rows,
            sums[0],
            sums[1],
            num_groups,
            0.0 if isinstance(foreground, Tensor) else foreground,
            0.0 if isinstance(background, Tensor) else background,
            0.0 if isinstance(gamma, Tensor) else gamma,
            0 if parameters.ignore_index is None else parameters.ignore_index,
            *rows.stride(),
            *written.stride(),
            0 if weights is None else weights.stride(0),
            NUM_CLASSES=num_classes,
            VECTOR=vector,
            GROUPS=groups,
            IS_DENSE=rows.is_contiguous() and written.is_contiguous(),
            ALPHA=_alpha_kind(parameters),
            GAMMA=_gamma_kind(parameters),
            HAS_IGNORED=parameters.ignore_index is not None,
            HAS_WEIGHTS=weights is not None,
            HAS_SCALE=scale is not None,
            HAS_GRADIENT=gradient is not None,
            IS_SHORT=rows.dtype != torch.float32,
            ON_GPU=rows.is_cuda,
            num_warps=4,
        )
    return sums


def _vector(num_classes: int, element_size: int) -> int:
    """How many neighbours are one group: at most 16 bytes of them, and a divisor of the row."""
    vector = 16 // element_size
    while num_classes % vector:
        vector //= 2
    return vector


def _alpha_kind(parameters: FocalParameters) -> int:
    if isinstance(parameters.foreground, Tensor):
        return ALPHA_PER_CLASS
    is_off = parameters.foreground == 1 and parameters.background == 1
    return ALPHA_OFF if is_off else ALPHA_NUMBER


def _gamma_kind(parameters: FocalParameters) -> int:
    if isinstance(parameters.gamma, Tensor):
        return GAMMA_PER_CLASS
    return {0.0: GAMMA_ZERO, 1.0: GAMMA_ONE, 2.0: GAMMA_TWO}.get(parameters.gamma, GAMMA_ANY)


def scale_in_place(values: Tensor, factor: Tensor) -> Tensor:
    """``values`` times the ``()`` factor, in their memory; a factor of 1 touches nothing.

    Few programs that go over everything, since the usual call has nothing to do: with a program for
    each block, the empty launch would cost more than the check.
    """
    count = values.numel()
    dense = values.as_strided((count,), (1,)) if _is_packed(values) else None
    if dense is None or count == 0:
        return values.mul_(factor)
    programs = min(triton.cdiv(count, BLOCK_ELEMENTS), 1024)
    with torch.cuda.device_of(values):
        _scale_kernel[(programs,)](dense, factor, count, BLOCK=BLOCK_ELEMENTS, num_warps=4)
    return values


def _is_packed(values: Tensor) -> bool:
    """Whether the elements fill their memory without a gap, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(values.stride(), values.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
