"""Tests of the CUDA kernel in Triton's interpreter, on CPU tensors.

test_fused_triton.py runs them, in a process with TRITON_INTERPRET=1 before Triton is imported:

    TRITON_INTERPRET=1 python -m pytest tests/losses/interpreted_triton_kernel.py
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from retina.losses.focal_parameters import focal_parameters
from retina.losses.focal_reference import class_index_loss

assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1 before Triton is imported"
from retina.losses.fused import triton_kernel  # noqa: E402
from retina.losses.fused.function import _try_triton  # noqa: E402
from retina.losses.fused.triton_kernel import (  # noqa: E402
    BLOCK_ELEMENTS,
    scale_in_place,
    triton_focal_loss,
)

IGNORED = -7

# One unit in the last place of the 16-bit types: the interpreter cuts float32 off to bfloat16,
# where a GPU rounds. float32: exp2 of a product that is rounded at 23 (x = 16) and more.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def example(num_classes: int, dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, class indices with left-out rows, row weights of either sign."""
    generator = torch.Generator().manual_seed(num_classes)
    x = torch.randn(*shape, num_classes, generator=generator) * 4
    targets = torch.randint(0, num_classes + 2, shape, generator=generator)
    targets[targets == num_classes + 1] = IGNORED
    return x.to(dtype), targets, torch.rand(shape, generator=generator) - 0.2


def check(
    x: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    alpha: object,
    gamma: object,
    ignore_index: int | None = IGNORED,
    scale: Tensor | None = None,
) -> None:
    """Total, share and gradient against the plain form in float64."""
    z = x.detach().double().requires_grad_()
    parameters = focal_parameters(alpha, gamma, ignore_index, z)  # type: ignore[arg-type]
    loss = class_index_loss(z, targets, parameters).sum(-1)
    if weights is not None:
        loss = loss * weights.double()
    if scale is not None:
        loss = loss * scale.double()
    (slopes,) = torch.autograd.grad(loss.sum(), z)
    is_class = (targets >= 0) & (targets < x.shape[-1])
    share = loss.detach()[is_class].sum().item()

    gradient = torch.empty_like(x).fill_(torch.nan)
    parameters = focal_parameters(alpha, gamma, ignore_index, x)  # type: ignore[arg-type]
    kept = x.clone()
    options = {"row_weights": weights, "scale": scale}
    total, foreground = triton_focal_loss(x, targets, parameters, gradient=gradient, **options)
    relative = 1e-6 if x.dtype == torch.float32 else 1e-5
    # Weights of both signs may cancel; below 1e-38 float32 runs out of digits.
    tolerance = max(relative * loss.detach().abs().sum().item(), torch.finfo(torch.float32).tiny)
    assert total.item() == pytest.approx(loss.sum().item(), abs=tolerance)
    assert foreground.item() == pytest.approx(share, abs=tolerance)
    smallest = 2**-24 if x.dtype == torch.float16 else 1e-36
    torch.testing.assert_close(gradient.double(), slopes, rtol=TOLERANCES[x.dtype], atol=smallest)
    assert torch.equal(x, kept)
    assert torch.equal(total, triton_focal_loss(x, targets, parameters, **options)[0])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 0.7, "per class"])
@pytest.mark.parametrize("alpha", [None, 0.25, "per class"])
@pytest.mark.parametrize(
    "num_classes",
    [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(80, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_equals_the_plain_form(
    dtype: torch.dtype, num_classes: int, alpha: object, gamma: object
) -> None:
    x, targets, weights = example(num_classes, dtype, 2, 19)
    alpha = torch.linspace(0.1, 0.9, num_classes) if alpha == "per class" else alpha
    gamma = torch.linspace(0, 4, num_classes) if gamma == "per class" else gamma
    check(x, targets, weights, alpha, gamma)


@pytest.mark.parametrize("num_classes", [1, 2, 7, 20, 80, 91, 264])
def test_any_number_of_classes(num_classes: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, targets, weights = example(num_classes, dtype, 40)
        check(x, targets, weights, 0.25, 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_than_one_program(dtype: torch.dtype) -> None:
    x, targets, weights = example(16, dtype, 1000)
    check(x, targets, weights, 0.25, 2.0)
    check(x, targets, None, 0.25, 2.0, scale=torch.tensor(0.125))


def test_options_can_be_left_out() -> None:
    x, targets, weights = example(80, torch.float32, 30)
    targets = targets.clamp(min=0)
    check(x, targets, None, None, 2.0, ignore_index=None)
    check(x, targets, weights, 0.25, 2.0, ignore_index=None)
    check(x, targets.int(), None, 0.25, 2.0, ignore_index=3)


def test_rows_left_out_are_not_even_read() -> None:
    x = torch.tensor([[torch.nan, torch.inf], [0.0, 0.0]])
    gradient = torch.empty_like(x)
    parameters = focal_parameters(0.25, 2.0, -1, x)
    total, _ = triton_focal_loss(x, torch.tensor([-1, 2]), parameters, gradient=gradient)
    # Two negatives at p = 1/2: 0.75 / 4 * ln 2 each, slope 0.75 / 4 * (1/2 + ln 2).
    log_2 = torch.log(torch.tensor(2.0)).item()
    assert total.item() == pytest.approx(2 * 0.1875 * log_2, rel=1e-6)
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient[1].tolist() == pytest.approx([0.1875 * (0.5 + log_2)] * 2, rel=1e-6)


@pytest.mark.parametrize("point", [-1e4, -200.0, -88.0, -17.0, 0.0, 17.0, 88.0, 200.0, 1e4])
def test_extreme_logits(point: float) -> None:
    for gamma in (0.0, 0.5, 2.0):
        x = torch.tensor([[point, -point]])
        for target in range(3):
            check(x, torch.tensor([target]), None, 0.25, gamma)


LAYOUTS = {
    "channels last": lambda x: (
        x.permute(0, 3, 4, 1, 2)
        .reshape(2, 15, 6, 4)
        .contiguous(memory_format=torch.channels_last)
        .permute(0, 2, 3, 1)
        .reshape(2, 6, 4, 3, 5)
    ),
    "channels first": lambda x: x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2),
    "a slice of levels": lambda x: torch.cat([x, x, x], dim=1)[:, 6:12],
    "a slice of classes": lambda x: torch.cat([x, x], dim=-1)[..., 3:8],
    "expanded": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 3, -1),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_strides(layout: str) -> None:
    x, targets, weights = example(5, torch.float32, 2, 6, 4, 3)
    check(LAYOUTS[layout](x), targets, weights, 0.25, 2.0)
    per_image = torch.tensor([0.5, 2.0])[:, None, None, None].expand(2, 6, 4, 3)
    check(LAYOUTS[layout](x), targets, per_image, 0.25, 2.0)


@pytest.mark.parametrize("layout", ["channels last", "channels first", "a slice of levels"])
def test_the_gradient_may_take_the_place_of_the_logits(layout: str) -> None:
    x, targets, _ = example(5, torch.float32, 2, 6, 4, 3)
    x = LAYOUTS[layout](x).clone(memory_format=torch.preserve_format)
    parameters = focal_parameters(0.25, 2.0, IGNORED, x)
    gradient = torch.empty_like(x)
    apart, _ = triton_focal_loss(x, targets, parameters, gradient=gradient)
    together, _ = triton_focal_loss(x, targets, parameters, gradient=x)
    assert torch.equal(apart, together)
    assert torch.equal(x, gradient)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    x = torch.zeros(*shape, 3)
    targets = torch.zeros(shape, dtype=torch.int64)
    parameters = focal_parameters(0.25, 2.0, None, x)
    sums = triton_focal_loss(x, targets, parameters, gradient=torch.empty_like(x))
    assert [value.item() for value in sums] == [0.0, 0.0]


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("factor", [1.0, -0.5, 0.0])
def test_scaling_in_place(dtype: torch.dtype, factor: float) -> None:
    for values in (
        torch.randn(3, BLOCK_ELEMENTS + 1).to(dtype),
        torch.randn(4, 5, 6).to(dtype).permute(2, 0, 1),
        torch.randn(4, 6).to(dtype)[:, :3],  # with gaps
    ):
        expected = values * factor  # exact in every dtype
        result = scale_in_place(values, torch.tensor(factor))
        assert result.data_ptr() == values.data_ptr()
        assert torch.equal(result, expected)


@pytest.mark.parametrize("layout", ["channels first", "a slice of classes"])
def test_many_groups_go_in_pieces(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[int] = []
    launch = triton_kernel._launch

    def counted(rows: Tensor, *others: Any) -> Tensor:
        launches.append(len(rows))
        return launch(rows, *others)

    monkeypatch.setattr(triton_kernel, "_launch", counted)
    monkeypatch.setattr(triton_kernel, "MAX_GROUPS", 57)  # of one logit: 11 rows of 5
    x, targets, weights = example(5, torch.float32, 2, 6, 4, 3)
    check(LAYOUTS[layout](x), targets, weights, 0.25, 2.0)
    assert max(launches) == 11
    assert sum(launches) == 2 * 144  # with the gradient, and without


def test_a_gradient_without_a_view_as_rows_leaves_the_logits_alone() -> None:
    x, targets, _ = example(5, torch.float32, 2, 6, 4, 3)
    kept = x.clone()
    wanted, gradient = torch.empty_like(x), torch.empty(3, 4, 6, 2, 5).permute(3, 2, 1, 0, 4)
    parameters = focal_parameters(0.25, 2.0, IGNORED, x)
    triton_focal_loss(x, targets, parameters, gradient=wanted)
    triton_focal_loss(x, targets, parameters, gradient=gradient)
    assert torch.equal(x, kept)
    assert torch.equal(gradient, wanted)


def test_the_trial_before_the_first_use_runs() -> None:
    _try_triton(torch.device("cpu"))
