import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from retina.losses import sigmoid_focal_loss


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize(("p_t", "factor"), [(0.9, 100.0), (0.5, 4.0)])
def test_gamma_two_fades_easy_examples_by_the_published_factor(p_t: float, factor: float) -> None:
    x = torch.tensor([[logit(p_t)]], dtype=torch.float64)
    cross_entropy = sigmoid_focal_loss(x, torch.tensor([0]), alpha=None, gamma=0.0)
    focal = sigmoid_focal_loss(x, torch.tensor([0]), alpha=None, gamma=2.0)
    assert (cross_entropy / focal).item() == pytest.approx(factor, rel=1e-9)


def test_a_value_worked_out_by_hand() -> None:
    # p = 0.8 for the class: FL = 0.25 * 0.2^2 * -ln(0.8); the other class p = 0.3, background:
    # 0.75 * 0.3^2 * -ln(0.7).
    x = torch.tensor([[logit(0.8), logit(0.3)]])
    loss = sigmoid_focal_loss(x, torch.tensor([0]))
    assert loss[0, 0].item() == pytest.approx(0.25 * 0.04 * -math.log(0.8), rel=1e-5)
    assert loss[0, 1].item() == pytest.approx(0.75 * 0.09 * -math.log(0.7), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_values_and_gradients_equal_torchvision(gamma: float, alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, dtype=torch.float64, generator=generator) * 4
    targets = torch.randint(0, 8, (50,), generator=generator)
    one_hot = F.one_hot(targets, 8)[:, :7].double()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    a = sigmoid_focal_loss(ours, targets, alpha=alpha, gamma=gamma, reduction="sum")
    b = torchvision_focal_loss(theirs, one_hot, alpha=alpha, gamma=gamma, reduction="sum")
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    dense = sigmoid_focal_loss(x, one_hot, alpha=alpha, gamma=gamma)
    integer = sigmoid_focal_loss(x, targets, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(dense, integer, rtol=1e-12, atol=1e-14)


def test_gamma_zero_without_alpha_is_binary_cross_entropy() -> None:
    x = torch.linspace(-20, 20, 41).reshape(-1, 1)
    targets = (torch.arange(41) % 2).float().reshape(-1, 1)
    ours = sigmoid_focal_loss(x, targets, alpha=None, gamma=0.0)
    # In float32 torch's own function cancels to 0 at x = -16, so it is the reference in float64.
    exact = F.binary_cross_entropy_with_logits(x.double(), targets.double(), reduction="none")
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)


def test_alpha_one_weighs_nothing_where_torchvision_silences_every_negative() -> None:
    x, background = torch.tensor([[2.0]]), torch.tensor([1])
    ours = sigmoid_focal_loss(x, background, alpha=1)
    assert ours.item() == sigmoid_focal_loss(x, background, alpha=None).item() > 1
    assert torchvision_focal_loss(x, torch.zeros(1, 1), alpha=1).item() == 0


@pytest.mark.parametrize("alpha", [0, -0.5, 1.5, (0.2, 1.0), (0.2, 0.0)])
def test_senseless_alpha_is_refused_and_none_is_named(alpha: float) -> None:
    with pytest.raises(ValueError, match="or None for no class weighting"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=alpha)


def test_alpha_per_class() -> None:
    x, target = torch.zeros(1, 2), torch.tensor([1])
    plain = sigmoid_focal_loss(x, target, alpha=None)
    weighted = sigmoid_focal_loss(x, target, alpha=(0.1, 0.8))
    torch.testing.assert_close(weighted / plain, torch.tensor([[0.9, 0.8]]))


def test_ignored_rows_have_neither_loss_nor_gradient_nor_a_place_in_the_mean() -> None:
    x = torch.tensor([[1.0, -2.0], [0.5, 0.5]], requires_grad=True)
    targets = torch.tensor([-100, 2])
    loss = sigmoid_focal_loss(x, targets)
    assert loss[0].tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert x.grad is not None
    assert x.grad[0].tolist() == [0.0, 0.0]
    mean = sigmoid_focal_loss(x, targets, reduction="mean")
    torch.testing.assert_close(mean, loss[1].mean())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
def test_extreme_logits_stay_finite(gamma: float) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.tensor([[-1e4, 1e4, 0.0, -80.0]], dtype=dtype, requires_grad=True)
        for target in range(5):
            loss = sigmoid_focal_loss(x, torch.tensor([target]), gamma=gamma, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()


def test_gradients_agree_with_finite_differences() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, -100, 2])
    assert torch.autograd.gradcheck(
        lambda z: sigmoid_focal_loss(z, targets, gamma=1.5, reduction="sum"), x
    )


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) must have the shape"):
        sigmoid_focal_loss(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="integers for one class per row"):
        sigmoid_focal_loss(torch.zeros(2, 4), torch.zeros(2))


def test_empty_input() -> None:
    empty = torch.zeros(0, 3, requires_grad=True)
    loss = sigmoid_focal_loss(empty, torch.zeros(0, dtype=torch.int64), reduction="mean")
    loss.backward()
    assert loss.item() == 0
