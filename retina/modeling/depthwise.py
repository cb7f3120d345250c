"""Depthwise convolutions that are quick to train in bf16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution whose gradients are computed in float32 under autocast on a CPU.

    The result is that of `nn.Conv2d` to the last bit. oneDNN has no quick kernel for the gradient
    of a depthwise convolution in bf16: it takes about four times as long as in float32 (measured
    by benchmarks/depthwise.py), and most of the time of a training step of such a network.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``."""
        learns = torch.is_grad_enabled() and (self.weight.requires_grad or input.requires_grad)
        if not learns or input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            output: Tensor = _Float32Gradient.apply(
                input.to(dtype), self.weight, self.stride, self.padding, self.dilation
            )
            return output if self.bias is None else output + self.bias.to(dtype)[:, None, None]


class _Float32Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.geometry = stride, padding, dilation
        groups = images.shape[1]
        return F.conv2d(images, weight.to(images.dtype), None, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(),
            images.float(),
            weight.to(images.dtype).float(),
            None,
            *ctx.geometry,
            False,
            (0, 0),
            images.shape[1],
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )
        of_images = of_images.to(images.dtype) if of_images is not None else None
        return of_images, of_weight, None, None, None


def use_quick_depthwise(network: nn.Module) -> None:
    """Give a network's depthwise convolutions, in place, the gradients of `DepthwiseConv2d`.

    Their weights and names stay. Subclasses of `nn.Conv2d`, which pad in ways of their own, stay
    what they are.
    """
    for name, layer in list(network.named_modules()):
        if type(layer) is nn.Conv2d and _is_depthwise(layer):
            parent, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(parent), own_name, _like(layer))


def _is_depthwise(layer: nn.Conv2d) -> bool:
    is_padded_by_number = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return 1 < layer.groups == layer.in_channels and is_padded_by_number


def _like(layer: nn.Conv2d) -> DepthwiseConv2d:
    with torch.device("meta"):
        new = DepthwiseConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            bias=layer.bias is not None,
        )
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)
