import math

import pytest
import torch
from torch import Tensor

from retina.losses import focal_loss_sums, sigmoid_focal_loss
from retina.losses.focal_parameters import focal_parameters
from retina.losses.focal_reference import class_index_loss
from retina.losses.fused import can_fuse

Example = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def example() -> Example:
    """Logits that a network computed, class indices, row weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 5, generator=generator) * 3
    targets = torch.randint(-1, 6, (2, 30), generator=generator)
    return x, targets, torch.rand(2, 30, generator=generator)


def plain_gradient(example: Example, factor: float = 1.0) -> Tensor:
    """The gradient of the plain form in float64."""
    x, targets, weights = example
    z = x.double().requires_grad_()
    loss = class_index_loss(z, targets, focal_parameters(0.25, 2.0, -1, z))
    ((loss.sum(-1) * weights).sum() * factor).backward()
    assert z.grad is not None
    return z.grad


def total(x: Tensor, example: Example, in_place: bool = False) -> Tensor:
    _, targets, weights = example
    return focal_loss_sums(
        x, targets, ignore_index=-1, row_weights=weights, in_place=in_place
    ).total


def test_the_gradient_from_outside_multiplies(example: Example) -> None:
    for factor in (1.0, -0.3, 0.0):
        x = example[0].clone().requires_grad_()
        (total(x, example) * factor).backward()
        torch.testing.assert_close(
            x.grad, plain_gradient(example, factor).float(), rtol=5e-6, atol=1e-30
        )


def test_a_second_backward_pass_is_right_too(example: Example) -> None:
    x = example[0].clone().requires_grad_()
    loss = total(x, example) * 3
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    first.zero_()  # the first gradient is the caller's, to do with as it likes
    (second,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(second, plain_gradient(example, 3).float(), rtol=5e-6, atol=1e-30)


def test_a_gradient_can_be_differentiated(example: Example) -> None:
    x = example[0].double().requires_grad_()
    weights = example[2].double()

    def loss(z: Tensor) -> Tensor:
        return focal_loss_sums(z, example[1], ignore_index=-1, row_weights=weights).total

    assert can_fuse(x, example[1], focal_parameters(0.25, 2.0, -1, x), weights)
    assert torch.autograd.gradgradcheck(loss, x)


def test_foreground_and_total_of_a_case_by_hand() -> None:
    # All logits 0: p = 1/2, ln 2 / 4 an element, times 0.25 for the own class and 0.75 else.
    unit = torch.log(torch.tensor(2.0)).item() / 4
    x = torch.zeros(3, 4, requires_grad=True)
    weights = torch.tensor([2.0, 1.0, 5.0])
    sums = focal_loss_sums(x, torch.tensor([1, 4, -1]), ignore_index=-1, row_weights=weights)
    assert sums.foreground.item() == pytest.approx(2 * (0.25 + 3 * 0.75) * unit)
    assert sums.total.item() == pytest.approx(2 * (0.25 + 3 * 0.75) * unit + 4 * 0.75 * unit)
    assert sums.total.requires_grad
    assert not sums.foreground.requires_grad


def test_the_gradient_takes_the_place_of_the_logits(example: Example) -> None:
    source = example[0].clone().requires_grad_()
    x = source * 1
    address = x.data_ptr()
    seen: list[Tensor] = []
    x.register_hook(seen.append)
    loss = total(x, example, in_place=True)
    loss.backward()
    assert seen[0].data_ptr() == address
    torch.testing.assert_close(source.grad, plain_gradient(example).float(), rtol=5e-6, atol=1e-30)


def test_in_place_has_one_backward_pass_and_says_so(example: Example) -> None:
    source = example[0].clone().requires_grad_()
    loss = total(source * 1, example, in_place=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"in_place=True.*there is one backward pass"):
        loss.backward()
    loss = total(source * 1, example, in_place=True)
    with pytest.raises(RuntimeError, match="no second derivative; pass in_place=False"):
        torch.autograd.grad(loss, source, create_graph=True)


def test_in_place_does_not_hurt_those_who_still_need_the_logits(example: Example) -> None:
    source = example[0].clone().requires_grad_()
    x = source * 1
    loss = x.square().sum() + total(x, example, in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_refuses_tensors_that_are_not_its_own(example: Example) -> None:
    with pytest.raises(ValueError, match="would overwrite a leaf"):
        total(example[0].clone().requires_grad_(), example, in_place=True)
    shared = (example[0][:, :, :1].clone().requires_grad_() * 1).expand(-1, -1, 5)
    with pytest.raises(ValueError, match="these are expanded"):
        total(shared, example, in_place=True)


@pytest.mark.parametrize("in_place", [False, True])
def test_small_float16_gradients_survive_with_a_loss_scale(in_place: bool) -> None:
    # The slope is 0.75 σ²(σ + 2 (1 - σ) softplus), about 0.75 * 3 * e^-21 = 1.7e-9: nothing in
    # float16, where 65536 times as much is something.
    source = torch.full((1, 1), -7.0, dtype=torch.float16, requires_grad=True)
    sums = focal_loss_sums(source * 1, torch.tensor([1]), in_place=in_place)
    (sums.total * 65536).backward()
    assert source.grad is not None
    p, cross_entropy = 1 / (1 + math.exp(7)), math.log1p(math.exp(-7))
    wanted = 65536 * 0.75 * p**2 * (p + 2 * (1 - p) * cross_entropy)
    assert source.grad.item() == pytest.approx(wanted, rel=2**-10)


def test_nothing_is_kept_where_no_gradient_is_wanted(example: Example) -> None:
    x, targets, _ = example
    constant = sigmoid_focal_loss(x, targets, ignore_index=-1, reduction="sum")
    with torch.no_grad():
        silent = sigmoid_focal_loss(
            x.clone().requires_grad_(), targets, ignore_index=-1, reduction="sum"
        )
    assert not constant.requires_grad
    assert not silent.requires_grad
    assert constant.item() == silent.item()


def test_which_cases_are_fused(example: Example) -> None:
    x, targets, weights = example
    parameters = focal_parameters(0.25, 2.0, -1, x)
    assert can_fuse(x, targets, parameters, weights)
    assert can_fuse(torch.nn.Parameter(x), targets, parameters, None)
    assert not can_fuse(x, targets, parameters, weights.clone().requires_grad_())
    learned = focal_parameters(0.25, torch.tensor(2.0, requires_grad=True), -1, x)
    assert not can_fuse(x, targets, learned, None)
    assert not can_fuse(x.to("meta"), targets.to("meta"), parameters, None)
    assert not can_fuse(x.to(torch.float8_e4m3fn), targets, parameters, None)


def test_tensors_without_values_take_the_plain_form(example: Example) -> None:
    x, targets, _ = example
    loss = sigmoid_focal_loss(x.to("meta"), targets.to("meta"), ignore_index=-1, reduction="sum")
    assert loss.shape == ()
    with torch._subclasses.FakeTensorMode() as mode:
        fake = sigmoid_focal_loss(mode.from_tensor(x), mode.from_tensor(targets), reduction="mean")
    assert fake.shape == ()


def test_one_thread_or_two_give_the_same_gradient(example: Example) -> None:
    x, targets, _ = example
    x = x.repeat(1, 500, 1)
    targets = targets.repeat(1, 500)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            z = x.clone().requires_grad_()
            loss = sigmoid_focal_loss(z, targets, ignore_index=-1, reduction="sum")
            loss.backward()
            assert z.grad is not None
            results.append((loss.item(), z.grad))
    finally:
        torch.set_num_threads(before)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


def test_row_weights_of_another_shape_are_refused(example: Example) -> None:
    x, targets, weights = example
    with pytest.raises(ValueError, match=r"row_weights \(2, 29\) must have the shape"):
        focal_loss_sums(x, targets, ignore_index=-1, row_weights=weights[:, 1:])
    with pytest.raises(ValueError, match=r"takes class indices of shape \(2, 30\)"):
        focal_loss_sums(x, torch.zeros_like(x))


def test_in_place_refuses_a_view_of_a_leaf(example: Example) -> None:
    weights = torch.nn.Parameter(example[0].clone())
    with pytest.raises(ValueError, match="would overwrite a leaf"):
        focal_loss_sums(weights.flatten(0, 1), example[1].flatten(), ignore_index=-1, in_place=True)
    assert torch.equal(weights, example[0])


def test_in_place_refuses_windows_that_overlap() -> None:
    windows = (torch.randn(9, requires_grad=True) * 1).unfold(0, 5, 1)  # (5, 5), strides 1 and 1
    with pytest.raises(ValueError, match="needs logits of which every element has its own memory"):
        focal_loss_sums(windows, torch.zeros(5, dtype=torch.int64), in_place=True)


def test_in_place_takes_any_order_and_gaps(example: Example) -> None:
    source = torch.cat([example[0]] * 2, dim=-1).requires_grad_()
    turned = (source * 1)[..., 3:8].transpose(0, 1)
    targets = example[1].T
    focal_loss_sums(turned, targets, ignore_index=-1, in_place=True).total.backward()
    assert source.grad is not None
    inner = source.detach()[..., 3:8].clone().requires_grad_()
    focal_loss_sums(inner, example[1], ignore_index=-1).total.backward()
    torch.testing.assert_close(source.grad[..., 3:8], inner.grad, rtol=1e-6, atol=0)
    assert source.grad[..., :3].abs().max() == 0


def test_in_place_gives_the_same_logits_away_once(example: Example) -> None:
    logits = example[0].clone().requires_grad_() * 1
    first = total(logits, example, in_place=True)
    with pytest.raises(ValueError, match="given away by an earlier call"):
        total(logits, example, in_place=True)
    with pytest.raises(ValueError, match="given away by an earlier call"):
        total(logits.view_as(logits), example, in_place=True)
    del first, logits
    halves = example[0].clone().requires_grad_() * 1
    targets = example[1]
    for piece, wanted in ((halves[:1], targets[:1]), (halves[1:], targets[1:])):
        focal_loss_sums(piece, wanted, ignore_index=-1, in_place=True)  # apart: both may be given


def test_a_gpu_that_cannot_compile_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    from retina.losses.fused import function

    pytest.importorskip("triton")
    tried: list[torch.device] = []

    def fail(device: torch.device) -> None:
        tried.append(device)
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(function, "_try_triton", fail)
    function._has_triton.cache_clear()
    device = torch.device("cuda", 0)
    with pytest.warns(UserWarning, match="Failed to find C compiler.*plain form"):
        assert not function._has_triton(device)
    assert not function._has_triton(device)
    function._has_triton.cache_clear()
    assert tried == [device]
