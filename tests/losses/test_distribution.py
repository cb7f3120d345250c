import math

import numpy as np
import pytest
import torch

from retina.losses import distribution_focal_loss


def test_values_worked_out_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).log()
    assert distribution_focal_loss(logits, torch.tensor([1.0])).item() == pytest.approx(
        -math.log(0.2)
    )
    loss = distribution_focal_loss(logits, torch.tensor([1.25]))
    assert loss.item() == pytest.approx(-0.75 * math.log(0.2) - 0.25 * math.log(0.3))


def test_targets_are_cut_off_at_both_ends() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().expand(3, 4)
    below, above, at_the_end = distribution_focal_loss(logits, torch.tensor([-7.0, 1e9, 2.9]))
    assert below.item() == pytest.approx(-math.log(0.1))
    assert above.item() == at_the_end.item()
    assert above.item() == pytest.approx(-0.1 * math.log(0.3) - 0.9 * math.log(0.4), rel=1e-5)


def test_it_equals_a_plain_reference_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, 17, dtype=torch.float64, generator=generator) * 5
    target = torch.rand(50, 4, dtype=torch.float64, generator=generator) * 15.9
    shares = np.exp(logits.numpy())
    shares /= shares.sum(axis=-1, keepdims=True)
    expected = np.empty((50, 4))
    for at in np.ndindex(50, 4):
        y = float(target[at])
        i = math.floor(y)
        left, right = np.log(shares[at][i]), np.log(shares[at][i + 1])
        expected[at] = -((i + 1 - y) * left + (y - i) * right)
    loss = distribution_focal_loss(logits, target)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)
    for reduction, value in (("sum", expected.sum()), ("mean", expected.mean())):
        reduced = distribution_focal_loss(logits, target, reduction=reduction)  # type: ignore[arg-type]
        assert reduced.item() == pytest.approx(value)


def test_the_gradient_leads_to_the_two_bins_around_the_target() -> None:
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor(2.25, dtype=torch.float64, requires_grad=True)
    distribution_focal_loss(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.2, 0.2, 0.2 - 0.75, 0.2 - 0.25, 0.2])
    assert target.grad is None
    assert torch.autograd.gradcheck(
        distribution_focal_loss, (logits.detach().requires_grad_(), target.detach())
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)).to(dtype) * 30
    target = torch.linspace(-1, 9, 6)
    loss = distribution_focal_loss(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, distribution_focal_loss(logits.float(), target))
    assert loss.isfinite().all()


def test_no_targets_have_no_loss() -> None:
    empty = torch.zeros(0, 4, 17), torch.zeros(0, 4)
    assert distribution_focal_loss(*empty).shape == (0, 4)
    assert distribution_focal_loss(*empty, reduction="mean").item() == 0


@pytest.mark.parametrize(("bins", "shape"), [((3, 5), (5,)), ((3, 1), (3,)), ((), ())])
def test_shapes_that_do_not_fit_are_refused(bins: tuple[int, ...], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have the shape of the logits"):
        distribution_focal_loss(torch.zeros(bins), torch.zeros(shape))
