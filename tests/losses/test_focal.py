import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from retina.losses import focal_loss_sums, sigmoid_focal_loss
from retina.losses.reduction import Reduction


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def exact(x: float, is_positive: bool, alpha: float, gamma: float) -> tuple[float, float]:
    """The loss and its derivative with 60 digits."""
    with mpmath.workdps(60):
        z = mpmath.mpf(-x if is_positive else x)
        wrong = 1 / (1 + mpmath.exp(-z))  # 1 - p_t
        cross_entropy = mpmath.log1p(mpmath.exp(z))
        weight = mpmath.mpf(alpha if is_positive else 1 - alpha) * wrong ** mpmath.mpf(gamma)
        slope = weight * (wrong + gamma * (1 - wrong) * cross_entropy)
        return float(weight * cross_entropy), float(-slope if is_positive else slope)


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
    theirs = x.clone().requires_grad_()
    b = torchvision_focal_loss(theirs, one_hot, alpha=alpha, gamma=gamma, reduction="sum")
    b.backward()
    for wanted in (targets, one_hot, one_hot.bool(), one_hot.long()):
        ours = x.clone().requires_grad_()
        a = sigmoid_focal_loss(ours, wanted, alpha=alpha, gamma=gamma, reduction="sum")
        a.backward()
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        elementwise = sigmoid_focal_loss(x, wanted, alpha=alpha, gamma=gamma)
        reference = torchvision_focal_loss(x, one_hot, alpha=alpha, gamma=gamma)
        torch.testing.assert_close(elementwise, reference, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_gamma_zero_is_binary_cross_entropy(alpha: float | None) -> None:
    x = torch.linspace(-40, 40, 81, dtype=torch.float64).reshape(-1, 1)
    for targets in (torch.zeros_like(x), torch.ones_like(x), torch.linspace(0, 1, 81).double()):
        y = targets.reshape(-1, 1)
        weight = None if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        if alpha is not None and not bool(((y == 0) | (y == 1)).all()):
            continue  # torch's weight cannot tell the two terms of a soft target apart
        ours = sigmoid_focal_loss(x, y, alpha=alpha, gamma=0.0)
        theirs = F.binary_cross_entropy_with_logits(x, y, weight=weight, reduction="none")
        # The last bits of torch's own: it adds (1 - y) x and a logarithm of the same size.
        torch.testing.assert_close(ours, theirs, rtol=1e-15, atol=1e-14)


def test_gamma_zero_keeps_the_digits_that_torch_loses_in_float32() -> None:
    x = torch.linspace(-20, 20, 41).reshape(-1, 1)
    targets = (torch.arange(41) % 2).float().reshape(-1, 1)
    ours = sigmoid_focal_loss(x, targets, alpha=None, gamma=0.0)
    # torch's own function cancels: to 0 at x = -16 in float32, to 7 digits at -20 in float64.
    wanted = [
        2 * exact(z.item(), y.item() == 1, 0.5, 0.0)[0] for z, y in zip(x, targets, strict=True)
    ]
    expected = torch.tensor(wanted, dtype=torch.float64).reshape(-1, 1)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-7, atol=0)


POINTS = [-1e4, -95.0, -60.0, -25.0, -10.0, -3.0, -1e-3, 0.0, 0.5, 4.0, 12.0, 30.0, 90.0, 1e4]


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_keep_their_digits_everywhere(
    dtype: torch.dtype, gamma: float, reduction: str
) -> None:
    # "none" is the plain form, "sum" the fast path.
    tolerance = {torch.float64: 1e-13, torch.float32: 8e-6}.get(dtype, torch.finfo(dtype).eps)
    smallest = torch.finfo(dtype).tiny  # below it digits go missing in any arithmetic
    for point in POINTS:
        for target in (0, 1):
            x = torch.tensor([[point]], dtype=dtype, requires_grad=True)
            loss = sigmoid_focal_loss(x, torch.tensor([target]), gamma=gamma, reduction=reduction)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            value, slope = exact(x.item(), target == 0, 0.25, gamma)
            floor = torch.finfo(loss.dtype).tiny
            assert loss.item() == pytest.approx(value, rel=min(tolerance, 8e-6), abs=floor)
            assert gradient.item() == pytest.approx(slope, rel=tolerance, abs=smallest)


@pytest.mark.parametrize("is_integer", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7, (0.0, 1.0, 2.5)])
def test_first_and_second_derivatives_agree_with_finite_differences(
    gamma: float, is_integer: bool
) -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, -100, 2])
    if not is_integer:
        targets = torch.rand(4, 3, dtype=torch.float64)
    for reduction in ("none", "sum", "mean"):

        def loss(z: Tensor, reduction: str = reduction) -> Tensor:
            return sigmoid_focal_loss(
                z,
                targets,
                gamma=gamma,
                alpha=(0.2, 0.5, 0.7),
                reduction=reduction,  # type: ignore[arg-type]
                ignore_index=-100,
            )

        assert torch.autograd.gradcheck(loss, x)
        assert torch.autograd.gradgradcheck(loss, x)


def test_alpha_one_weighs_nothing_where_torchvision_silences_every_negative() -> None:
    x, background = torch.tensor([[2.0]]), torch.tensor([1])
    ours = sigmoid_focal_loss(x, background, alpha=1)
    assert ours.item() == sigmoid_focal_loss(x, background, alpha=None).item() > 1
    assert torchvision_focal_loss(x, torch.zeros(1, 1), alpha=1).item() == 0


@pytest.mark.parametrize(
    ("alpha", "effect"),
    [
        (0, "alpha=0 would give the foreground no loss"),
        (-0.5, "alpha=-0.5 would give one side a negative weight"),
        (1.5, "alpha=1.5 would give one side a negative weight"),
        ((0.2, 1.0), "alpha=1 would give that class's background no loss"),
        (torch.tensor([0.2, 0.0]), "alpha=0 would give the foreground no loss"),
        (math.nan, "alpha=nan would make every loss NaN"),
    ],
)
def test_senseless_alpha_is_refused_and_none_is_named(alpha: float, effect: str) -> None:
    with pytest.raises(ValueError, match=f"{effect}.*or None for no class weighting"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=alpha)


@pytest.mark.parametrize("gamma", [-1, math.inf, math.nan, (1.0, -2.0)])
def test_senseless_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be a finite number, at least 0"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=gamma)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_alpha_and_gamma_per_class(reduction: str) -> None:
    x = torch.randn(50, 2, dtype=torch.float64)
    targets = torch.randint(0, 3, (50,))
    per_class = sigmoid_focal_loss(
        x,
        targets,
        alpha=[0.1, 0.8],
        gamma=torch.tensor([0.5, 3.0]),
        reduction=reduction,  # type: ignore[arg-type]
    )
    one_hot = F.one_hot(targets, 3)[:, :2].double()
    columns = [
        sigmoid_focal_loss(x[:, k], one_hot[:, k], alpha=alpha, gamma=gamma)
        for k, (alpha, gamma) in enumerate([(0.1, 0.5), (0.8, 3.0)])
    ]
    expected = torch.stack(columns, dim=1)
    if reduction == "sum":
        expected = expected.sum()
    # As close as float64: a sequence does not pass through float32 on its way in.
    torch.testing.assert_close(per_class, expected, rtol=1e-12, atol=0)


def test_the_number_of_classes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"alpha has shape \(3,\) for 2 classes"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"gamma has shape \(1, 2\) for 2 classes"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=torch.ones(1, 2))


def test_soft_targets_weigh_both_terms() -> None:
    x = torch.tensor([0.3, -2.0])
    one, zero = (sigmoid_focal_loss(x, torch.full((2,), y)) for y in (1.0, 0.0))
    mixed = sigmoid_focal_loss(x, torch.tensor([0.7, 0.1]))
    torch.testing.assert_close(
        mixed, torch.tensor([0.7, 0.1]) * one + torch.tensor([0.3, 0.9]) * zero
    )


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_left_out_rows_have_neither_loss_nor_gradient(reduction: str) -> None:
    values = torch.tensor([[1.0, -2.0], [0.5, 0.5], [math.nan, math.inf]])
    targets = torch.tensor([-100, 2, -100])
    x = values.clone().requires_grad_()
    loss = sigmoid_focal_loss(x, targets, ignore_index=-100, reduction=reduction)  # type: ignore[arg-type]
    alone = values[1:2].clone().requires_grad_()
    expected = sigmoid_focal_loss(alone, targets[1:2], reduction="sum")
    torch.testing.assert_close(loss.sum(), expected)
    loss.sum().backward()
    expected.backward()
    assert x.grad is not None
    assert alone.grad is not None
    assert x.grad[[0, 2]].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(x.grad[1:2], alone.grad)


def test_the_mean_is_over_what_is_not_left_out() -> None:
    x = torch.randn(6, 4)
    index = torch.tensor([0, 1, 9, 4, 9, 2])
    loss = sigmoid_focal_loss(x, index, ignore_index=9)
    mean = sigmoid_focal_loss(x, index, ignore_index=9, reduction="mean")
    torch.testing.assert_close(mean, loss.sum() / 16)  # 4 rows of 4 classes
    torch.testing.assert_close(
        sigmoid_focal_loss(x, index.clamp(max=4), reduction="mean"),
        sigmoid_focal_loss(x, index.clamp(max=4)).sum() / 24,
    )
    for dense in (torch.randint(0, 2, (6, 4)), torch.rand(6, 4)):
        masked = dense.clone()
        masked[0, :3] = -1
        expected = sigmoid_focal_loss(x, dense).flatten()[3:].sum() / 21
        mean = sigmoid_focal_loss(x, masked, ignore_index=-1, reduction="mean")
        torch.testing.assert_close(mean, expected)


def test_the_gradient_of_the_mean_is_divided_too() -> None:
    x = torch.randn(6, 4, requires_grad=True)
    index = torch.tensor([0, 1, 9, 4, 9, 2])
    gradients = []
    for reduction, divisor in (("mean", 1), ("sum", 16), ("none", 16)):
        loss = sigmoid_focal_loss(x, index, ignore_index=9, reduction=reduction)  # type: ignore[arg-type]
        gradients.append(torch.autograd.grad(loss.sum() / divisor, x)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@pytest.mark.parametrize("left_out", [False, True])
def test_the_mean_of_nothing_is_zero(left_out: bool) -> None:
    x = torch.zeros(2 if left_out else 0, 3, requires_grad=True)
    for targets in (torch.full((len(x),), -1), torch.full((len(x), 3), -1.0)):
        loss = sigmoid_focal_loss(x, targets, reduction="mean", ignore_index=-1)
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.item() == 0
        assert gradient.tolist() == x.tolist()
        assert sigmoid_focal_loss(x, targets, ignore_index=-1).shape == x.shape


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"integer targets \(3,\) do not fit logits \(2, 4\)"):
        sigmoid_focal_loss(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"float targets \(2,\).*or integers \(2,\) for one class"):
        sigmoid_focal_loss(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"bool targets \(2,\) are no class indices.*squeeze"):
        sigmoid_focal_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="reduction must be 'none', 'sum' or 'mean', is 'avg'"):
        sigmoid_focal_loss(torch.zeros(2, 1), torch.zeros(2, 1), reduction="avg")  # type: ignore[arg-type]


def test_integers_of_the_logits_shape_are_labels_and_one_dimension_less_are_classes() -> None:
    labels = torch.tensor([1, 0])
    x = torch.tensor([2.0, -1.0])
    binary = sigmoid_focal_loss(x, labels)
    torch.testing.assert_close(binary, sigmoid_focal_loss(x, labels.float()))
    # With K = 1 the same numbers say the opposite: 0 is the only class, 1 the background.
    classes = sigmoid_focal_loss(x.unsqueeze(1), labels)
    torch.testing.assert_close(classes.squeeze(1), sigmoid_focal_loss(x, 1 - labels))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(("index", "ignored"), [(-1, None), (5, None), (255, None), (-1, 255)])
def test_a_class_index_out_of_range_is_named(
    reduction: str, index: int, ignored: int | None
) -> None:
    with pytest.raises(ValueError, match=rf"class index {index} is not in 0\.\.4 .*is {ignored}$"):
        sigmoid_focal_loss(
            torch.zeros(2, 4),
            torch.tensor([0, index]),
            reduction=reduction,  # type: ignore[arg-type]
            ignore_index=ignored,
        )


@pytest.mark.parametrize("targets", [torch.tensor([[0, 3]]), torch.tensor([[-0.1, 1.0]])])
def test_a_dense_target_out_of_range_is_named(targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"target (3|-0\.1) of an element is not in 0\.\.1"):
        sigmoid_focal_loss(torch.zeros(1, 2), targets)


@pytest.mark.parametrize("integers", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_every_integer_type_holds_classes(integers: torch.dtype) -> None:
    x = torch.randn(5, 3)
    targets = torch.tensor([0, 1, 2, 3, 255 if integers == torch.uint8 else -1])
    ignored = int(targets[-1])
    wide = sigmoid_focal_loss(x, targets, ignore_index=ignored, reduction="sum")
    narrow = sigmoid_focal_loss(x, targets.to(integers), ignore_index=ignored, reduction="sum")
    assert wide.item() == narrow.item()


def losses(x: Tensor, index: Tensor, dense: Tensor) -> Tensor:
    integer = sigmoid_focal_loss(x, index, ignore_index=-1, reduction="mean")
    sums = focal_loss_sums(x, index, alpha=None, gamma=1.5, ignore_index=-1)
    return integer + sums.total + sums.foreground + sigmoid_focal_loss(x, dense).sum()


def test_callers_compile_into_one_graph() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    index, dense = torch.randint(-1, 6, (7,)), torch.rand(7, 5)
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")
    expected = losses(x, index, dense)
    (wanted,) = torch.autograd.grad(expected, x)
    actual = compiled(x, index, dense)
    (gradient,) = torch.autograd.grad(actual, x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient, wanted)


def by_sample(x: Tensor, index: Tensor) -> Tensor:
    return sigmoid_focal_loss(x, index, reduction="sum", gamma=torch.tensor(1.5))


TRANSFORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vmap": torch.func.vmap(by_sample),
    "vmap of grad": torch.func.vmap(torch.func.grad(by_sample)),
    "jacrev": lambda x, index: torch.func.jacrev(by_sample)(x, index),
    "hessian": lambda x, index: torch.func.hessian(by_sample)(x, index),
}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_functional_transforms(name: str) -> None:
    x = torch.randn(3, 6, 2, dtype=torch.float64)
    index = torch.randint(0, 3, (3, 6))
    actual = TRANSFORMS[name](x, index)
    if name == "vmap":
        expected = torch.stack([by_sample(x[i], index[i]) for i in range(3)])
    elif name == "hessian":
        expected = torch.autograd.functional.hessian(lambda z: by_sample(z, index), x)
    else:
        z = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(by_sample(z, index), z)
    torch.testing.assert_close(actual, expected)


def test_forward_mode_gives_the_directional_derivative() -> None:
    x = torch.randn(6, 2, dtype=torch.float64)
    index, direction = torch.randint(0, 3, (6,)), torch.randn(6, 2, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        _, tangent = torch.autograd.forward_ad.unpack_dual(by_sample(dual, index))
    (gradient,) = torch.autograd.grad(by_sample(x.requires_grad_(), index), x)
    torch.testing.assert_close(tangent, (gradient * direction).sum())


def test_gamma_and_row_weights_can_be_learned() -> None:
    x = torch.randn(6, 2, dtype=torch.float64)
    index = torch.randint(0, 3, (6,))
    gamma = torch.tensor([1.0, 2.5], dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda g, w: focal_loss_sums(x, index, gamma=g, row_weights=w).total, (gamma, weights)
    )


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_small_integers_are_class_indices_like_large_ones(
    dtype: torch.dtype, reduction: Reduction
) -> None:
    # 300 is no uint8, so that a comparison in uint8 has 44 in its place.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 300, generator=generator)
    targets = torch.tensor([0, 43, 44, 100])
    wanted = sigmoid_focal_loss(x, targets, reduction=reduction, ignore_index=-200)
    ours = sigmoid_focal_loss(x, targets.to(dtype), reduction=reduction, ignore_index=-200)
    assert torch.equal(ours, wanted)
    total = focal_loss_sums(x, targets.to(dtype), ignore_index=-200)
    assert torch.equal(total.foreground, focal_loss_sums(x, targets).foreground)


def test_255_is_not_minus_1() -> None:
    with pytest.raises(ValueError, match=r"class index 255 is not in 0\.\.4"):
        sigmoid_focal_loss(
            torch.zeros(1, 4), torch.tensor([255], dtype=torch.uint8), ignore_index=-1
        )
    with pytest.raises(ValueError, match="target 255 of an element"):
        sigmoid_focal_loss(torch.zeros(1), torch.tensor([255], dtype=torch.uint8), ignore_index=-1)


def test_numbers_of_numpy_are_numbers_and_other_things_are_refused() -> None:
    x, targets = torch.randn(3, 2), torch.tensor([0, 1, 2])
    wanted = sigmoid_focal_loss(x, targets, alpha=0.25, gamma=2.0)
    for gamma in (np.float32(2), np.int64(2), np.full(2, 2.0)):
        ours = sigmoid_focal_loss(x, targets, alpha=np.float32(0.25), gamma=gamma)  # type: ignore[arg-type]
        torch.testing.assert_close(ours, wanted)
    for wrong in (None, "2", [None]):
        with pytest.raises(ValueError, match="gamma must be a number"):
            sigmoid_focal_loss(x, targets, gamma=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha must be a number"):
        sigmoid_focal_loss(x, targets, alpha="0.25")  # type: ignore[arg-type]
    for infinite in (math.inf, math.nan):
        with pytest.raises(ValueError, match="gamma must be a finite number"):
            sigmoid_focal_loss(x, targets, gamma=infinite)
