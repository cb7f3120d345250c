import pytest
import torch
from torch import Tensor

from retina.losses.focal_parameters import focal_parameters
from retina.losses.focal_reference import class_index_loss
from retina.losses.fused.chunked import BLOCK_ELEMENTS, chunked_focal_loss

IGNORED = -7


def example(rows: int, num_classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, class indices with left-out rows, row weights."""
    generator = torch.Generator().manual_seed(rows + num_classes)
    x = torch.randn(rows, num_classes, generator=generator, dtype=torch.float64) * 4
    targets = torch.randint(0, num_classes + 2, (rows,), generator=generator)
    targets[targets == num_classes + 1] = IGNORED
    return x.to(dtype), targets, torch.rand(rows, generator=generator)


def reference(
    x: Tensor, targets: Tensor, weights: Tensor | None, alpha: object, gamma: object
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, the foreground's share and gradient of the plain form in float64."""
    z = x.detach().double().requires_grad_()
    parameters = focal_parameters(alpha, gamma, IGNORED, z)  # type: ignore[arg-type]
    loss = class_index_loss(z, targets, parameters).sum(-1)
    if weights is not None:
        loss = loss * weights.double()
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    is_class = (targets >= 0) & (targets < x.shape[-1])
    return loss.sum().detach(), loss.detach()[is_class].sum(), gradient


TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 5e-6,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-10,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.5, 1.0, 2.0, 3.7, "per class"])
@pytest.mark.parametrize("alpha", [None, 0.25, "per class"])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_equals_the_plain_form(
    dtype: torch.dtype, alpha: object, gamma: object, weighted: bool
) -> None:
    x, targets, row_weights = example(300, 7, dtype)
    weights = row_weights if weighted else None
    alpha = torch.linspace(0.1, 0.9, 7) if alpha == "per class" else alpha
    gamma = torch.linspace(0, 4, 7) if gamma == "per class" else gamma
    total, foreground, slopes = reference(x, targets, weights, alpha, gamma)
    gradient = torch.full_like(x, torch.nan)
    actual = chunked_focal_loss(
        x,
        targets,
        focal_parameters(alpha, gamma, IGNORED, x),  # type: ignore[arg-type]
        row_weights=weights,
        gradient=gradient,
    )
    assert actual[0].item() == pytest.approx(total.item(), rel=1e-6)
    assert actual[1].item() == pytest.approx(foreground.item(), rel=1e-6)
    smallest = torch.finfo(dtype).tiny if dtype != torch.float16 else 2**-24
    torch.testing.assert_close(gradient.double(), slopes, rtol=TOLERANCES[dtype], atol=smallest)
    alone = chunked_focal_loss(
        x,
        targets,
        focal_parameters(alpha, gamma, IGNORED, x),  # type: ignore[arg-type]
        row_weights=weights,
    )
    assert alone[0].item() == actual[0].item()  # the loss alone is the same loss


@pytest.mark.parametrize("num_classes", [1, 3, 80, 2 * BLOCK_ELEMENTS + 1])
def test_more_than_one_block(num_classes: int) -> None:
    rows = 3 if num_classes > BLOCK_ELEMENTS else 2 * BLOCK_ELEMENTS // num_classes + 5
    x, targets, _ = example(rows, num_classes, torch.float32)
    total, foreground, slopes = reference(x, targets, None, 0.25, 2.0)
    gradient = torch.empty_like(x)
    actual = chunked_focal_loss(
        x, targets, focal_parameters(0.25, 2.0, IGNORED, x), gradient=gradient
    )
    assert actual[0].item() == pytest.approx(total.item(), rel=1e-6)
    assert actual[1].item() == pytest.approx(foreground.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), slopes, rtol=5e-6, atol=1e-37)


def channels_last(x: Tensor) -> Tensor:
    """What a head's convolution gives: images, anchors by classes, rows, columns."""
    head = x.reshape(2, 20, 10, 3, 5).permute(0, 3, 4, 1, 2).reshape(2, 15, 20, 10)
    head = head.contiguous(memory_format=torch.channels_last)
    return head.permute(0, 2, 3, 1).reshape(2, 20, 10, 3, 5)


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels last": channels_last,
    "channels first": lambda x: x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2),
    "a slice of levels": lambda x: torch.cat([x, x, x], dim=1)[:, 20:40],
    "a slice of classes": lambda x: torch.cat([x, x], dim=-1)[..., 3:8],
    "every other row": lambda x: x.repeat_interleave(2, dim=3)[..., ::2, :],
    "expanded": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 3, -1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("block_elements", [BLOCK_ELEMENTS, 64])
def test_any_strides(
    layout: str, dtype: torch.dtype, block_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retina.losses.fused.chunked.BLOCK_ELEMENTS", block_elements)
    flat, targets, weights = example(1200, 5, dtype)
    x = LAYOUTS[layout](flat.reshape(2, 20, 10, 3, 5))
    targets, weights = targets.reshape(2, 20, 10, 3), weights.reshape(2, 20, 10, 3)
    total, foreground, slopes = reference(x, targets, weights, 0.3, 2.0)
    gradient = torch.empty_like(x)
    actual = chunked_focal_loss(
        x,
        targets,
        focal_parameters(0.3, 2.0, IGNORED, x),
        row_weights=weights,
        gradient=gradient,
    )
    assert actual[0].item() == pytest.approx(total.item(), rel=1e-6)
    assert actual[1].item() == pytest.approx(foreground.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), slopes, rtol=TOLERANCES[dtype], atol=1e-37)


def test_a_logit_beyond_the_range_of_exp_costs_a_second_look_at_its_block_only() -> None:
    x = torch.full((3, 4), -1.0)
    x[1, 2] = 200.0  # exp overflows in float32
    targets = torch.tensor([4, 4, 0])
    gradient = torch.empty_like(x)
    total, _ = chunked_focal_loss(
        x, targets, focal_parameters(0.25, 2.0, None, x), gradient=gradient
    )
    # σ(200) = 1 and softplus(200) = 200: 0.75 * 200, and a gradient of 0.75; the rest by the form.
    expected, _, slopes = reference(x, targets, None, 0.25, 2.0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradient[1, 2].item() == pytest.approx(0.75, rel=1e-6)
    torch.testing.assert_close(gradient.double(), slopes, rtol=5e-6, atol=0)


def test_a_sure_positive_leaves_no_rounding_in_the_sum() -> None:
    # Added with the negatives and taken away again, 3e4 would leave 1e-3 of error.
    x = torch.full((100, 8), -3.0)
    x[:, 0] = 3e4
    targets = torch.zeros(100, dtype=torch.int64)
    total, foreground = chunked_focal_loss(x, targets, focal_parameters(None, 2.0, None, x))
    expected, _, _ = reference(x, targets, None, None, 2.0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert foreground.item() == total.item()


def test_nan_is_not_hidden() -> None:
    x = torch.zeros(2, 3)
    x[0, 1] = torch.nan
    total, _ = chunked_focal_loss(x, torch.tensor([3, 0]), focal_parameters(0.25, 2.0, None, x))
    assert total.isnan()
