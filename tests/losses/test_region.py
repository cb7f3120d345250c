import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.func import grad, vmap

from retina.losses import dice_loss, focal_tversky_loss, tversky_loss

Array = npt.NDArray[np.float64]


def softmax(logits: Array) -> Array:
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = exponent / exponent.sum(axis=1, keepdims=True)
    return result


def published_tversky(probability: Array, wanted: Array, delta: float, smooth: float) -> Array:
    """The index per image and class, as the authors of Unified Focal Loss write it."""
    axes = tuple(range(2, probability.ndim))
    tp = (wanted * probability).sum(axis=axes)
    fn = (wanted * (1 - probability)).sum(axis=axes)
    fp = ((1 - wanted) * probability).sum(axis=axes)
    index: Array = (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)
    return index


def random_case(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Array]:
    """Logits of a shape, class targets, and these one-hot."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
    num_classes = max(2, shape[1])
    targets = torch.randint(0, num_classes, (shape[0], *shape[2:]), generator=generator)
    one_hot = np.moveaxis(np.eye(num_classes)[targets.numpy()], -1, 1)
    return logits, targets, one_hot if shape[1] > 1 else one_hot[:, 1:]


def test_values_worked_out_by_hand() -> None:
    # Scores 0.8, 0.6, 0.1, 0.3 where the first and the last pixel are foreground:
    # TP = 1.1, FN = 0.9, FP = 0.7.
    logits = torch.logit(torch.tensor([0.8, 0.6, 0.1, 0.3], dtype=torch.float64)).reshape(1, 1, 4)
    targets = torch.tensor([[1, 0, 0, 1]])
    dice = 2 * 1.1 / (2 * 1.1 + 0.9 + 0.7)
    assert dice_loss(logits, targets, smooth=1e-12).item() == pytest.approx(1 - dice, rel=1e-9)
    index = 1.1 / (1.1 + 0.7 * 0.9 + 0.3 * 0.7)
    assert tversky_loss(logits, targets, smooth=1e-12).item() == pytest.approx(1 - index, rel=1e-9)
    focal = focal_tversky_loss(logits, targets, gamma=0.75, smooth=1e-12)
    assert focal.item() == pytest.approx((1 - index) ** 0.75, rel=1e-9)
    smooth = dice_loss(logits, targets, smooth=1.0)
    assert smooth.item() == pytest.approx(1 - (1.1 + 1) / (1.1 + 0.45 + 0.35 + 1), rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 1, 7), (2, 1, 5, 6), (2, 4, 5, 6), (2, 3, 4, 3, 5)])
@pytest.mark.parametrize("delta", [0.3, 0.7])
def test_it_is_the_published_formula_in_two_and_three_dimensions(
    shape: tuple[int, ...], delta: float
) -> None:
    logits, targets, one_hot = random_case(*shape)
    probability = softmax(logits.numpy()) if shape[1] > 1 else 1 / (1 + np.exp(-logits.numpy()))
    index = published_tversky(probability, one_hot, delta, 1e-6)
    options = {"delta": delta}
    each = tversky_loss(logits, targets, reduction="none", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(each.numpy(), 1 - index, rtol=1e-11)
    focal = focal_tversky_loss(logits, targets, gamma=0.75, **options)  # type: ignore[arg-type]
    assert focal.item() == pytest.approx(((1 - index) ** 0.75).mean(), rel=1e-11)
    total = tversky_loss(logits, targets, reduction="sum", **options)  # type: ignore[arg-type]
    assert total.item() == pytest.approx((1 - index).sum(), rel=1e-11)
    half = published_tversky(probability, one_hot, 0.5, 1e-6)
    assert dice_loss(logits, targets).item() == pytest.approx((1 - half).mean(), rel=1e-11)
    soft = tversky_loss(logits, torch.tensor(one_hot), reduction="none", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(soft, each, rtol=1e-12, atol=0)


def test_pooling_counts_over_the_batch_and_the_background_can_be_left_out() -> None:
    logits, targets, one_hot = random_case(3, 4, 5, 6)
    as_one = softmax(logits.numpy()).transpose(1, 0, 2, 3).reshape(1, 4, -1)
    wanted = one_hot.transpose(1, 0, 2, 3).reshape(1, 4, -1)
    index = published_tversky(as_one, wanted, 0.5, 1e-6)
    pooled = dice_loss(logits, targets, pool_batch=True, reduction="none")
    assert pooled.shape == (1, 4)
    np.testing.assert_allclose(pooled.numpy(), 1 - index, rtol=1e-11)
    each = dice_loss(logits, targets, reduction="none")
    foreground = dice_loss(logits, targets, include_background=False, reduction="none")
    assert torch.equal(foreground, each[:, 1:])
    # with one channel that is the foreground: nothing is left out
    binary, mask, _ = random_case(2, 1, 9)
    kept = dice_loss(binary, mask, include_background=False, reduction="none")
    assert torch.equal(kept, dice_loss(binary, mask, reduction="none"))


@pytest.mark.parametrize("channels", [1, 3])
def test_ignored_pixels_count_for_nothing(channels: int) -> None:
    logits, targets, _ = random_case(2, channels, 8)
    expected = tversky_loss(logits[..., :5], targets[..., :5], reduction="none")
    targets[..., 5:] = 255
    logits.requires_grad_()
    loss = tversky_loss(logits, targets, ignore_index=255, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[..., 5:].abs().max() == 0
    assert logits.grad[..., :5].abs().min() > 0


def test_a_label_that_is_no_class_fails_instead_of_counting_as_nothing() -> None:
    for channels in (1, 3):
        with pytest.raises((IndexError, RuntimeError)):
            dice_loss(torch.zeros(1, channels, 4), torch.tensor([[0, 1, 255, 0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_extreme_logits_stay_finite(dtype: torch.dtype, channels: int, gamma: float) -> None:
    for foreground in (0, 1, 4):  # pixels of 4
        for sign in (-1, 1):
            logits = torch.zeros(1, channels, 4, dtype=dtype)
            logits[:, -1] = sign * 1e4
            logits.requires_grad_()
            targets = (torch.arange(4) < foreground).long().unsqueeze(0)
            loss = focal_tversky_loss(logits, targets, gamma=gamma, reduction="none")
            loss.sum().backward()
            right = foreground == (4 if sign > 0 else 0)
            assert loss.dtype == torch.float32
            expected = 0.0 if right else 1.0
            if foreground == 1 and sign > 0:
                expected = (1 - 1 / (1 + 0.3 * 3)) ** gamma  # TP = 1, FP = 3
            assert loss[0, -1].item() == pytest.approx(expected, abs=1e-5)
            assert logits.grad is not None
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2])
def test_float32_keeps_the_gradient_where_p_rounds_to_one(channels: int) -> None:
    logits = torch.zeros(1, channels, 4)
    logits[:, -1] = torch.tensor([25.0, 30.0, -2.0, 1.0])
    targets = torch.tensor([[1, 1, 0, 1]])

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        tversky_loss(x, targets).backward()
        assert x.grad is not None
        return x.grad

    exact = gradient(logits.double())
    assert exact.abs().min() > 0
    torch.testing.assert_close(gradient(logits).double(), exact, rtol=1e-4, atol=0)


def test_a_perfect_prediction_has_a_finite_gradient_at_any_exponent() -> None:
    logits = torch.tensor([[[60.0, -60.0]]], requires_grad=True)
    loss = focal_tversky_loss(logits, torch.tensor([[1, 0]]), gamma=0.25)
    loss.backward()
    assert loss.item() < 1e-6
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_pass_gradcheck_twice(channels: int, gamma: float) -> None:
    logits, targets, _ = random_case(2, channels, 3, 2)
    logits.requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return focal_tversky_loss(x, targets, gamma=gamma, reduction="none")

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))


def test_nothing_has_no_loss() -> None:
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(0, 4, 4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    without_pixels = dice_loss(torch.zeros(2, 1, 0), torch.zeros(2, 0, dtype=torch.int64))
    assert without_pixels.item() == 0
    ignored = torch.full((2, 4), 9)
    assert dice_loss(torch.randn(2, 3, 4), ignored, ignore_index=9).item() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_it_compiles_whole_and_maps_over_examples(channels: int) -> None:
    logits, targets, _ = random_case(4, channels, 3, 5)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return focal_tversky_loss(x, y, ignore_index=9, reduction="sum")

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))

    def of_one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(x.unsqueeze(0), y.unsqueeze(0))

    whole = logits.clone().requires_grad_()
    loss(whole, targets).backward()
    torch.testing.assert_close(vmap(grad(of_one))(logits, targets), whole.grad)
    torch.testing.assert_close(vmap(of_one)(logits, targets).sum(), loss(logits, targets))


def test_descending_the_dice_loss_finds_the_region() -> None:
    targets = torch.zeros(1, 12, 12, dtype=torch.int64)
    targets[0, 3:6, 4:9] = 1
    logits = torch.zeros(1, 1, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss = dice_loss(logits, targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    assert torch.equal((logits[:, 0] > 0).long(), targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 1.0}, "delta must be between 0 and 1, is 1.0"),
        ({"gamma": 0.0}, "gamma must be above 0 and finite, is 0.0"),
        ({"smooth": 0.0}, "smooth must be above 0"),
        ({"reduction": "average"}, "reduction must be"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        focal_tversky_loss(
            torch.zeros(1, 2, 4),
            torch.zeros(1, 4, dtype=torch.int64),
            **arguments,  # type: ignore[arg-type]
        )


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets \(2, 1, 4\) do not fit logits \(2, 1, 4\)"):
        dice_loss(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="ignore_index works with integer targets"):
        dice_loss(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), ignore_index=255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_comes_through_from_an_ignored_pixel(bad: float, channels: int) -> None:
    logits = torch.randn(2, channels, 4)
    targets = torch.tensor([[0, 1, 255, 1], [1, 0, 0, 255]])
    losses, gradients = [], []
    for value in (0.0, bad):
        x = logits.clone()
        x[0, :, 2] = x[1, :, 3] = value
        x.requires_grad_()
        loss = focal_tversky_loss(x, targets, ignore_index=255)
        loss.backward()
        assert x.grad is not None
        losses.append(loss.item())
        gradients.append(x.grad)
    assert losses[0] == losses[1]
    assert torch.equal(gradients[0], gradients[1])


def test_exponent_and_smoothing_are_finite() -> None:
    logits, targets = torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="gamma must be above 0 and finite, is inf"):
        focal_tversky_loss(logits, targets, gamma=math.inf)
    with pytest.raises(ValueError, match="smooth must be above 0 and finite, is inf"):
        focal_tversky_loss(logits, targets, smooth=math.inf)
