import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from retina.losses import softmax_focal_loss


def random_case(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) * 3
    targets = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    weights = torch.rand(shape[1], generator=generator, dtype=torch.float64).to(dtype) + 0.1
    return logits, targets, weights


def test_a_value_worked_out_by_hand() -> None:
    # p = (0.7, 0.2, 0.1): FL of class 1 = 0.8^2 * -ln(0.2)
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log()
    loss = softmax_focal_loss(logits, torch.tensor([1]))
    assert loss.tolist() == pytest.approx([0.64 * -math.log(0.2)], rel=1e-6)
    # γ per class: 1 for class 1; and its weight of 3
    loss = softmax_focal_loss(
        logits, torch.tensor([1]), gamma=[0.0, 1.0, 5.0], class_weights=[1.0, 3.0, 1.0]
    )
    assert loss.tolist() == pytest.approx([3 * 0.8 * -math.log(0.2)], rel=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5), (2, 4, 3, 5), (2, 3, 2, 3, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gamma_zero_is_torchs_cross_entropy(
    shape: tuple[int, ...], weighted: bool, label_smoothing: float, reduction: str
) -> None:
    logits, targets, weights = random_case(*shape)
    targets[0] = -100
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    a = softmax_focal_loss(
        ours,
        targets,
        gamma=0.0,
        class_weights=weights if weighted else None,
        label_smoothing=label_smoothing,
        reduction=reduction,  # type: ignore[arg-type]
    )
    b = F.cross_entropy(
        theirs,
        targets,
        weights if weighted else None,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    a.sum().backward()
    b.sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gamma_zero_with_probabilities_is_torchs_cross_entropy(reduction: str) -> None:
    logits, _, weights = random_case(5, 4, 3)
    wanted = torch.rand(5, 4, 3, dtype=torch.float64).softmax(1)
    a = softmax_focal_loss(
        logits,
        wanted,
        gamma=0.0,
        class_weights=weights,
        label_smoothing=0.1,
        reduction=reduction,  # type: ignore[arg-type]
    )
    b = F.cross_entropy(logits, wanted, weights, label_smoothing=0.1, reduction=reduction)
    torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.7])
def test_values_and_gradients_equal_the_formula_in_float64(gamma: float) -> None:
    logits, targets, weights = random_case(20, 5)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    a = softmax_focal_loss(ours, targets, gamma=gamma, class_weights=weights, reduction="sum")
    p = plain.softmax(1).gather(1, targets[:, None])[:, 0]
    b = (-weights[targets] * (1 - p) ** gamma * p.log()).sum()
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-9, atol=1e-13)
    # one-hot probabilities are the same target
    soft = F.one_hot(targets, 5).double()
    c = softmax_focal_loss(logits, soft, gamma=gamma, class_weights=weights, reduction="sum")
    torch.testing.assert_close(a.detach(), c, rtol=1e-12, atol=0)


def test_the_soft_loss_is_the_sum_of_each_classs_own_faded_term() -> None:
    logits, _, _ = random_case(7, 4)
    wanted = torch.rand(7, 4, dtype=torch.float64)
    p = logits.softmax(1)
    expected = (-wanted * (1 - p) ** 2 * p.log()).sum(1)
    torch.testing.assert_close(softmax_focal_loss(logits, wanted), expected, rtol=1e-12, atol=0)


def test_the_mean_divides_by_the_weights_of_what_is_not_ignored() -> None:
    logits, _, _ = random_case(4, 3)
    targets = torch.tensor([0, 2, -1, 2])
    weights = [1.0, 5.0, 3.0]
    options = {"class_weights": weights, "ignore_index": -1}
    each = softmax_focal_loss(logits, targets, **options)  # type: ignore[arg-type]
    mean = softmax_focal_loss(logits, targets, reduction="mean", **options)  # type: ignore[arg-type]
    assert each[2].item() == 0
    assert mean.item() == pytest.approx(each.sum().item() / (1 + 3 + 3), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("soft", [False, True])
def test_extreme_logits_stay_finite(dtype: torch.dtype, gamma: float, soft: bool) -> None:
    values = [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]]
    logits = torch.tensor(values, dtype=dtype, requires_grad=True)
    targets = torch.tensor([1, 1, 0, 2])
    smoothing = 0.1 if soft else 0.0
    loss = softmax_focal_loss(logits, targets, gamma=gamma, label_smoothing=smoothing)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if not soft:
        ln3, ln2 = math.log(3), math.log(2)
        third = (2 / 3) ** gamma * ln3
        top = float(logits[0, 0].detach()) * 2
        expected = [top, 0.5**gamma * ln2, third, third]
        assert loss.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_float32_keeps_the_gradient_where_p_rounds_to_one(gamma: float, soft: bool) -> None:
    # At a margin of 30, 1 - p = 1e-13: cross_entropy's gradient in float32 is 0 on the target.
    logits = torch.tensor([[30.0, 0.0, -1.0]])
    hard = torch.tensor([0])
    target = F.one_hot(hard, 3).double() if soft else hard

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        softmax_focal_loss(x, target, gamma=gamma).sum().backward()
        assert x.grad is not None
        return x.grad

    exact = gradient(logits.double())
    assert exact[0, 0] != 0
    assert (exact[0, 0] < 0) == (exact[0, 1] > 0)
    torch.testing.assert_close(gradient(logits).double(), exact, rtol=1e-4, atol=0)


def test_gradients_pass_gradcheck_twice() -> None:
    logits, targets, weights = random_case(3, 4, 2)
    logits.requires_grad_()

    def loss(x: torch.Tensor, smoothing: float, gamma: float) -> torch.Tensor:
        return softmax_focal_loss(
            x, targets, gamma=gamma, class_weights=weights, label_smoothing=smoothing
        )

    for smoothing in (0.0, 0.1):
        for gamma in (0.0, 0.5, 2.0, 3.0):
            assert torch.autograd.gradcheck(loss, (logits, smoothing, gamma))
            assert torch.autograd.gradgradcheck(loss, (logits, smoothing, gamma))


def test_one_class_is_always_right() -> None:
    logits = torch.randn(4, 1, requires_grad=True)
    loss = softmax_focal_loss(logits, torch.zeros(4, dtype=torch.int64), reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_classes_that_are_masked_out_may_be_minus_infinity() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.tensor([0]), gamma=0.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_nothing_has_no_loss(reduction: str) -> None:
    logits = torch.zeros(0, 3, 4, requires_grad=True)
    loss = softmax_focal_loss(
        logits,
        torch.zeros(0, 4, dtype=torch.int64),
        reduction=reduction,  # type: ignore[arg-type]
    )
    loss.sum().backward()
    assert loss.shape == ((0, 4) if reduction == "none" else ())
    assert loss.sum().item() == 0
    ignored = softmax_focal_loss(
        torch.randn(2, 3), torch.tensor([-100, -100]), reduction="mean", class_weights=[1.0] * 3
    )
    assert ignored.item() == 0


def test_it_compiles_whole_and_maps_over_examples() -> None:
    logits, targets, _ = random_case(6, 4, dtype=torch.float32)
    expected = softmax_focal_loss(logits, targets)
    compiled = torch.compile(softmax_focal_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, targets), expected)
    smooth = compiled(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(smooth, softmax_focal_loss(logits, targets, label_smoothing=0.1))

    torch.testing.assert_close(vmap(softmax_focal_loss)(logits, targets), expected)
    per_example = vmap(grad(softmax_focal_loss))(logits, targets)
    whole = logits.clone().requires_grad_()
    softmax_focal_loss(whole, targets).sum().backward()
    torch.testing.assert_close(per_example, whole.grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1.0}, "gamma must be a finite number, at least 0, is -1"),
        ({"gamma": [1.0, -1.0, 0.0]}, "gamma must be a finite number, at least 0, is -1"),
        ({"gamma": [1.0, 1.0]}, r"gamma has shape \(2,\) for 3 classes"),
        ({"class_weights": [1.0]}, r"class_weights has shape \(1,\) for 3 classes"),
        ({"label_smoothing": 1.5}, "label_smoothing must be between 0 and 1, is 1.5"),
        ({"reduction": "average"}, "reduction must be"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_focal_loss(torch.zeros(2, 3), torch.tensor([0, 1]), **arguments)  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets \(2, 1\) do not fit logits \(2, 3\)"):
        softmax_focal_loss(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"targets \(2,\) do not fit logits \(2, 3\)"):
        softmax_focal_loss(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_comes_through_from_an_ignored_row(bad: float, smoothing: float) -> None:
    x = torch.zeros(2, 3, 2)
    x[0, :, 1] = bad
    x.requires_grad_()
    targets = torch.tensor([[0, -100], [1, 2]])
    loss = softmax_focal_loss(x, targets, label_smoothing=smoothing, reduction="sum")
    loss.backward()
    # (1 - 1/3)² ln 3 for each of the three others; with smoothing every class gives as much.
    assert loss.item() == pytest.approx(3 * (2 / 3) ** 2 * math.log(3), rel=1e-6)
    assert x.grad is not None
    assert x.grad[0, :, 1].tolist() == [0, 0, 0]


def test_classes_and_options_out_of_range_are_refused() -> None:
    x, targets = torch.randn(2, 3), torch.tensor([0, 1])
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"class index {wrong} is not in 0\.\.2"):
            softmax_focal_loss(x, torch.tensor([0, wrong]))
    with pytest.raises(ValueError, match=r"class index 156 is not in 0\.\.2"):  # -100 + 256
        softmax_focal_loss(x, torch.tensor([0, 156], dtype=torch.uint8))
    for weights in ([1.0, -1.0, 1.0], torch.tensor([1.0, math.nan, 1.0]), [1.0, math.inf, 1.0]):
        with pytest.raises(ValueError, match="class_weights must be finite numbers, at least 0"):
            softmax_focal_loss(x, targets, class_weights=weights)
    for gamma in (math.inf, math.nan, None):
        with pytest.raises(ValueError, match="gamma must be a"):
            softmax_focal_loss(x, targets, gamma=gamma)  # type: ignore[arg-type]


def test_a_number_may_be_a_tensor_or_numpys() -> None:
    x, targets = torch.randn(2, 3), torch.tensor([0, 1])
    wanted = softmax_focal_loss(x, targets, gamma=1.5)
    for gamma in (torch.tensor(1.5), np.float32(1.5)):
        torch.testing.assert_close(softmax_focal_loss(x, targets, gamma=gamma), wanted)  # type: ignore[arg-type]
