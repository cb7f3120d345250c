import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.func import grad, vmap

from retina.losses import quality_focal_loss, varifocal_loss
from retina.losses.quality import quality_focal_loss_sums, varifocal_loss_sums

Array = npt.NDArray[np.float64]
K = 4


def cross_entropy(score: Array, wanted: Array) -> Array:
    result: Array = -wanted * np.log(score) - (1 - wanted) * np.log(1 - score)
    return result


def mmdetections_quality_focal(logits: Array, labels: Array, quality: Array, beta: float) -> Array:
    """quality_focal_loss of mmdetection 3 in numpy, before its sum over the classes."""
    score = 1 / (1 + np.exp(-logits))
    loss = cross_entropy(score, np.zeros_like(score)) * score**beta
    for row in np.flatnonzero((labels >= 0) & (labels < logits.shape[1])):
        own = score[row, labels[row]]
        wanted = quality[row]
        loss[row, labels[row]] = cross_entropy(own, wanted) * np.abs(wanted - own) ** beta
    return loss


def mmdetections_varifocal(logits: Array, wanted: Array, alpha: float, gamma: float) -> Array:
    """varifocal_loss of mmdetection 3 (iou_weighted) in numpy."""
    score = 1 / (1 + np.exp(-logits))
    weight = wanted * (wanted > 0) + alpha * np.abs(score - wanted) ** gamma * (wanted <= 0)
    result: Array = cross_entropy(score, wanted) * weight
    return result


def random_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (30, K), integer targets with background, their quality, and the same spread out."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, K, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(0, K + 1, (30,), generator=generator)
    quality = torch.rand(30, generator=generator, dtype=torch.float64)
    quality[:5] = 0  # a positive whose box misses its object
    dense = torch.zeros(30, K + 1, dtype=torch.float64)
    dense = dense.scatter(1, targets.unsqueeze(1), quality.unsqueeze(1))[:, :K]
    return logits, targets, quality, dense


def test_values_worked_out_by_hand() -> None:
    # own class: score 0.8, IoU 0.6; the other class: score 0.3, background
    logits = torch.logit(torch.tensor([[0.8, 0.3]], dtype=torch.float64))
    label, iou = torch.tensor([0]), torch.tensor([0.6], dtype=torch.float64)
    own = -0.6 * math.log(0.8) - 0.4 * math.log(0.2)
    loss = quality_focal_loss(logits, label, iou)
    assert loss[0].tolist() == pytest.approx([0.2**2 * own, 0.3**2 * -math.log(0.7)])
    loss = varifocal_loss(logits, label, iou)
    assert loss[0].tolist() == pytest.approx([0.6 * own, 0.75 * 0.3**2 * -math.log(0.7)])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_quality_focal_loss_is_mmdetections(beta: float) -> None:
    logits, targets, quality, dense = random_case()
    expected = mmdetections_quality_focal(logits.numpy(), targets.numpy(), quality.numpy(), beta)
    loss = quality_focal_loss(logits, targets, quality, beta=beta)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(
        quality_focal_loss(logits, dense, beta=beta).numpy(), expected, rtol=1e-10
    )


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.5, 1.0), (1.0, 0.0), (2.0, 3.5)])
def test_varifocal_loss_is_mmdetections(alpha: float, gamma: float) -> None:
    logits, targets, quality, dense = random_case()
    expected = mmdetections_varifocal(logits.numpy(), dense.numpy(), alpha, gamma)
    loss = varifocal_loss(logits, targets, quality, alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(
        varifocal_loss(logits, dense, alpha=alpha, gamma=gamma).numpy(), expected, rtol=1e-10
    )


def test_a_score_that_is_its_quality_has_no_quality_focal_loss() -> None:
    quality = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    logits = torch.logit(quality.clamp(1e-9, 1 - 1e-9)).unsqueeze(1).requires_grad_()
    loss = quality_focal_loss(logits, torch.zeros(5, dtype=torch.int64), quality)
    loss.sum().backward()
    assert loss.abs().max() < 1e-15
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-15


@pytest.mark.parametrize("kind", ["quality_focal", "varifocal"])
@pytest.mark.parametrize("exponent", [0.0, 1.5, 2.0])
def test_the_sums_are_the_sums_of_the_elements(kind: str, exponent: float) -> None:
    logits, targets, quality, _ = random_case()
    targets[10:15] = -1
    weights = torch.rand(30, dtype=torch.float64)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    if kind == "quality_focal":
        sums = quality_focal_loss_sums(
            ours, targets, quality, beta=exponent, ignore_index=-1, row_weights=weights
        )
        loss = quality_focal_loss(plain, targets, quality, beta=exponent, ignore_index=-1)
    else:
        sums = varifocal_loss_sums(
            ours, targets, quality, gamma=exponent, ignore_index=-1, row_weights=weights
        )
        loss = varifocal_loss(plain, targets, quality, gamma=exponent, ignore_index=-1)
    per_row = loss.sum(1) * weights
    assert per_row[10:15].abs().max() == 0
    per_row.sum().backward()
    sums.total.backward()
    is_foreground = (targets >= 0) & (targets < K)
    torch.testing.assert_close(sums.total, per_row.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.foreground, per_row[is_foreground].sum(), rtol=1e-12, atol=0)
    assert not sums.foreground.requires_grad
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-10, atol=1e-14)


def test_the_mean_is_over_the_elements_that_are_not_ignored() -> None:
    logits, targets, quality, dense = random_case()
    targets[:10] = -1
    each = quality_focal_loss(logits, targets, quality, ignore_index=-1)
    mean = quality_focal_loss(logits, targets, quality, ignore_index=-1, reduction="mean")
    assert mean.item() == pytest.approx(each.sum().item() / (20 * K), rel=1e-12)
    mean = varifocal_loss(logits, dense, reduction="mean")
    assert mean.item() == pytest.approx(varifocal_loss(logits, dense).mean().item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_extreme_logits_stay_finite(dtype: torch.dtype, exponent: float) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 1e4]], dtype=dtype)
    targets = torch.tensor([0, 0, 2])
    quality = torch.tensor([1.0, 0.5, 0.0])
    top = float(logits[0, 0])
    for form in ("elements", "sums"):
        for name in ("quality", "vari"):
            x = logits.clone().requires_grad_()
            if form == "sums" and name == "quality":
                total = quality_focal_loss_sums(x, targets, quality, beta=exponent).total
            elif form == "sums":
                total = varifocal_loss_sums(x, targets, quality, gamma=exponent).total
            elif name == "quality":
                total = quality_focal_loss(x, targets, quality, beta=exponent, reduction="sum")
            else:
                total = varifocal_loss(x, targets, quality, gamma=exponent, reduction="sum")
            total.backward()
            half = 0.5**exponent * math.log(2)  # the background at logit 0
            if name == "quality":
                expected = 0.5**exponent * 0.5 * top + 2 * top + half
            else:
                expected = 0.5 * 0.5 * top + 0.75 * (2 * top + half)
            assert total.item() == pytest.approx(expected, rel=1e-6)
            assert x.grad is not None
            assert x.grad.isfinite().all()


def test_float32_keeps_the_gradient_of_sure_scores() -> None:
    logits = torch.tensor([[30.0, -40.0], [-30.0, 25.0]])
    targets = torch.tensor([0, 1])
    quality = torch.ones(2)

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        quality_focal_loss(x, targets, quality.to(x.dtype), beta=1.0).sum().backward()
        assert x.grad is not None
        return x.grad

    exact = gradient(logits.double())
    assert exact.abs().min() > 0
    torch.testing.assert_close(gradient(logits).double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.5])
def test_gradients_pass_gradcheck_twice(exponent: float) -> None:
    logits, targets, quality, _ = random_case()
    logits = logits[3:10].requires_grad_()

    def quality_focal(x: torch.Tensor) -> torch.Tensor:
        return quality_focal_loss(x, targets[3:10], quality[3:10], beta=exponent)

    def varifocal(x: torch.Tensor) -> torch.Tensor:
        return varifocal_loss(x, targets[3:10], quality[3:10], gamma=exponent)

    for loss in (quality_focal, varifocal):
        assert torch.autograd.gradcheck(loss, (logits,))
        assert torch.autograd.gradgradcheck(loss, (logits,))


def test_the_quality_is_not_differentiated_and_nothing_has_no_loss() -> None:
    quality = torch.rand(3, requires_grad=True)
    logits = torch.randn(3, K, requires_grad=True)
    varifocal_loss(logits, torch.tensor([0, 1, K]), quality, reduction="sum").backward()
    assert quality.grad is None
    empty = torch.zeros(0, dtype=torch.int64)
    for loss in (quality_focal_loss, varifocal_loss):
        assert loss(torch.zeros(0, K), empty, torch.zeros(0), reduction="mean").item() == 0
        assert loss(torch.zeros(0, K), empty, torch.zeros(0)).shape == (0, K)


def test_they_compile_whole_and_map_over_examples() -> None:
    logits, targets, quality, _ = random_case()
    for loss in (quality_focal_loss, varifocal_loss):
        expected = loss(logits, targets, quality)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(logits, targets, quality), expected)
        torch.testing.assert_close(vmap(loss)(logits, targets, quality), expected)

        def of_one(x: torch.Tensor, y: torch.Tensor, q: torch.Tensor, loss=loss) -> torch.Tensor:  # type: ignore[no-untyped-def]
            total: torch.Tensor = loss(x, y, q).sum()
            return total

        whole = logits.clone().requires_grad_()
        loss(whole, targets, quality).sum().backward()
        torch.testing.assert_close(vmap(grad(of_one))(logits, targets, quality), whole.grad)


def test_what_makes_no_sense_is_refused() -> None:
    logits, targets = torch.zeros(2, K), torch.tensor([0, K])
    with pytest.raises(ValueError, match="beta must be a finite number, at least 0, is -1"):
        quality_focal_loss(logits, targets, torch.ones(2), beta=-1)
    with pytest.raises(ValueError, match="alpha must be above 0 and finite, is 0"):
        varifocal_loss(logits, targets, torch.ones(2), alpha=0)
    with pytest.raises(ValueError, match=r"integer targets \(2,\) and their quality None"):
        varifocal_loss(logits, targets)
    with pytest.raises(ValueError, match="are the qualities"):
        varifocal_loss(logits, torch.zeros(2, K), torch.ones(2))


SUMS = (quality_focal_loss_sums, varifocal_loss_sums)


@pytest.mark.parametrize("loss", [quality_focal_loss, varifocal_loss, *SUMS])
def test_targets_and_qualities_out_of_range_are_refused(loss: Callable[..., object]) -> None:
    logits, quality = torch.zeros(2, K), torch.ones(2)
    for wrong in (K + 1, -5):
        with pytest.raises(ValueError, match=rf"class index {wrong} is not in 0\.\.{K}"):
            loss(logits, torch.tensor([0, wrong]), quality)
    with pytest.raises(ValueError, match=rf"class index 255 is not in 0\.\.{K}"):
        loss(logits, torch.tensor([0, 255], dtype=torch.uint8), quality, ignore_index=-1)
    for score in (-0.5, 1.25):
        with pytest.raises(ValueError, match=f"quality {score} of a row is not in 0"):
            loss(logits, torch.tensor([0, K]), torch.tensor([score, 0.0]))
    loss(logits, torch.tensor([0, K]), torch.tensor([1.0, 7.0]))  # what is not read is not checked


@pytest.mark.parametrize("loss", [quality_focal_loss, varifocal_loss])
def test_dense_qualities_are_checked_and_leave_out_nothing(loss: Callable[..., object]) -> None:
    logits = torch.zeros(2, K)
    for wrong in (-0.5, 1.25):
        with pytest.raises(ValueError, match=f"target {wrong} of an element is not in 0"):
            loss(logits, torch.full((2, K), wrong))
    with pytest.raises(ValueError, match="ignore_index works with integer targets"):
        loss(logits, torch.zeros(2, K), ignore_index=-1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_comes_through_from_an_ignored_row(bad: float) -> None:
    x = torch.zeros(2, K)
    x[0] = bad
    targets, quality = torch.tensor([-1, 1]), torch.tensor([math.nan, 0.5])
    for loss in (quality_focal_loss, varifocal_loss):
        logits = x.clone().requires_grad_()
        total = loss(logits, targets, quality, ignore_index=-1, reduction="sum")
        total.backward()
        alone = loss(x[1:], targets[1:], quality[1:], reduction="sum")
        assert total.item() == alone.item()
        assert logits.grad is not None
        assert logits.grad[0].tolist() == [0] * K
    for sums in SUMS:
        logits = x.clone().requires_grad_()
        both = sums(logits, targets, quality, ignore_index=-1)
        both.total.backward()
        assert both.total.item() == sums(x[1:], targets[1:], quality[1:]).total.item()
        assert logits.grad is not None
        assert logits.grad[0].tolist() == [0] * K


def test_exponents_are_finite() -> None:
    logits, targets = torch.zeros(2, K), torch.tensor([0, K])
    for wrong in (math.inf, math.nan):
        with pytest.raises(ValueError, match="beta must be a finite number"):
            quality_focal_loss(logits, targets, torch.ones(2), beta=wrong)
        with pytest.raises(ValueError, match="gamma must be a finite number"):
            varifocal_loss(logits, targets, torch.ones(2), gamma=wrong)
        with pytest.raises(ValueError, match="alpha must be above 0 and finite"):
            varifocal_loss(logits, targets, torch.ones(2), alpha=wrong)
