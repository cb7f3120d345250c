"""The gradients of depthwise convolutions in bf16 on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from retina.modeling.depthwise import DepthwiseConv2d, use_quick_depthwise


def _layer(stride: int = 1, *, bias: bool = False, dilation: int = 1) -> DepthwiseConv2d:
    torch.manual_seed(0)
    return DepthwiseConv2d(
        12, 24, 5, stride, padding=2 * dilation, dilation=dilation, groups=12, bias=bias
    )


def _gradients(layer: nn.Module, images: Tensor, *, bf16: bool) -> tuple[Tensor, list[Tensor]]:
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = layer(images)
    (output.double() * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    parameters = list(layer.parameters())
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    assert images.grad is not None
    return output, [images.grad, *(one for one in found if one is not None)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_result_is_torchs_and_the_gradient_is_nearer_to_the_exact_one(
    stride: int, bias: bool, dilation: int
) -> None:
    layer = _layer(stride, bias=bias, dilation=dilation)
    plain = nn.Conv2d(12, 24, 5, stride, 2 * dilation, dilation, groups=12, bias=bias)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(2, 12, 17, 13).contiguous(memory_format=torch.channels_last)
    ours, our_gradients = _gradients(layer, images, bf16=True)
    theirs, their_gradients = _gradients(plain, images, bf16=True)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2 if bias else 0)
    if not bias:
        assert torch.equal(ours, theirs)
    rounded = nn.Conv2d(12, 24, 5, stride, 2 * dilation, dilation, groups=12, bias=bias).double()
    rounded.load_state_dict({name: value.bfloat16() for name, value in layer.state_dict().items()})
    _, exact = _gradients(rounded, images.bfloat16().double(), bf16=False)
    for our, their, true in zip(our_gradients, their_gradients, exact, strict=True):
        our_error = (our.double() - true).abs().mean()
        assert our_error <= (their.double() - true).abs().mean() * 1.01
        assert our_error <= 4e-3 * true.abs().mean()


def test_without_autocast_it_is_torchs_layer() -> None:
    layer = _layer()
    plain = nn.Conv2d(12, 24, 5, padding=2, groups=12, bias=False)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(2, 12, 9, 9)
    output, gradients = _gradients(layer, images, bf16=False)
    wanted, wanted_gradients = _gradients(plain, images, bf16=False)
    assert torch.equal(output, wanted)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert torch.equal(one, other)


def test_a_network_gets_them_in_place_under_its_own_names() -> None:
    class Padding(nn.Conv2d):
        """A convolution that is one of its own kind."""

    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 8, 3, groups=4)),
        Padding(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
    ).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    use_quick_depthwise(network)
    kinds = [type(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert kinds == [nn.Conv2d, DepthwiseConv2d, nn.Conv2d, Padding, nn.Conv2d]
    assert not any(layer.training for layer in network.modules())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_frozen_weights_let_the_gradient_through() -> None:
    layer = _layer().requires_grad_(False)
    images = torch.randn(1, 12, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    output.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert layer.weight.grad is None
