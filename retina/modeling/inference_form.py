"""A detector made for running only: its norms are part of the convolutions before them."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from retina.devices import Precision
from retina.errors import UserError
from retina.modeling.detector import RetinaNet
from retina.modeling.pyramid import CoarseLevels

InferenceForm = Literal["plain", "folded", "compiled"]
"""``plain``: as it was trained; ``folded``: the same function in fewer operations; ``compiled``:
that, compiled on this machine in its first calls."""

_SIDE = 64
"""Of the image that shows which norm follows which convolution."""
_CLOSE = 1e-3
"""Of the largest value of a feature map: what rounding alone never reaches."""


def usual_form(precision: Precision, *, compiled: bool = False) -> InferenceForm:
    """In which form a detector is run: in float32 it is as it was trained, to the last bit."""
    if compiled:
        return "compiled"
    return "plain" if precision == "fp32" else "folded"


def in_form(
    detector: RetinaNet, form: InferenceForm, dtype: torch.dtype, device: torch.device
) -> RetinaNet:
    """The detector in this form, which gives the same up to rounding.

    Args:
        detector: in host memory. In evaluation mode all forms agree.
        form: ``plain`` gives the detector itself, the others a copy.
        dtype: in which autocast multiplies; float32 without autocast.
        device: where it shall be.

    Raises:
        UserError: there is no compiler on this machine.
    """
    if form == "plain":
        return detector.to(device)
    made = folded(detector, dtype).to(device)
    if form == "compiled":
        _check_compiler(device)
        # The weights become constants, laid out as the processor likes them.
        made.compile(options={"freezing": True})
    return made


def _check_compiler(device: torch.device) -> None:
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"--compile: there is no C++ compiler {compiler} on this machine; install it, name "
            "another in the environment variable CXX, or leave the option away"
        )


def folded(detector: RetinaNet, dtype: torch.dtype = torch.float32) -> RetinaNet:
    """A copy that gives the same in evaluation mode, up to rounding, in less time.

    Batch norms of the backbone become part of the weights of the convolutions before them, and
    the weights of convolutions are kept in the type that autocast multiplies them in, instead of
    being turned into it by each call. The copy cannot be trained. A norm without a convolution
    before it stays; all of them do where the result would be another.

    Weights and feature maps are channels-last.

    Args:
        detector: it stays as it is.
        dtype: in which autocast multiplies; float32 without autocast.
    """
    copied = copy.deepcopy(detector).eval().requires_grad_(False)
    backbone = copy.deepcopy(copied.backbone)
    before = _fold_norms(backbone)
    if _agree(_run(backbone), before) and _fits(backbone, dtype):
        copied.backbone = backbone
    if dtype != torch.float32:
        # P6 and P7 are computed in float32 on a CPU.
        float32 = {
            conv
            for module in copied.modules()
            if isinstance(module, CoarseLevels)
            for conv in module.modules()
        }
        for module in copied.modules():
            if isinstance(module, nn.Conv2d) and module not in float32:
                module.to(dtype)
    return copied.to(memory_format=torch.channels_last)


def _fold_norms(backbone: nn.Module) -> tuple[Tensor, ...]:
    """Fold in place; returns what the backbone made of an image before."""
    convs, before = _convs_before_norms(backbone)
    for name, conv in convs.items():
        norm: Any = backbone.get_submodule(name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        parent, _, own_name = name.rpartition(".")
        left = nn.Sequential(norm.drop, norm.act) if hasattr(norm, "act") else nn.Identity()
        setattr(backbone.get_submodule(parent), own_name, left.eval())
    return before


def _convs_before_norms(
    backbone: nn.Module,
) -> tuple[dict[str, nn.Conv2d], tuple[Tensor, ...]]:
    """By the name of each batch norm the convolution whose output it is given; and the maps."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # with the tensor, so that no id is used again
    found: dict[str, nn.Conv2d] = {}

    def after_conv(conv: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        made[id(output)] = conv, output

    def before_norm(name: str, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            found[name] = made[id(inputs[0])][0]

    hooks = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif all(getattr(module, key, None) is not None for key in ("running_mean", "running_var")):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, inputs, name=name: before_norm(name, inputs)
                )
            )
    maps = _run(backbone)
    for hook in hooks:
        hook.remove()
    return found, maps


def _agree(maps: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> bool:
    return all(
        bool((a - b).abs().amax() <= _CLOSE * b.abs().amax())
        for a, b in zip(maps, before, strict=True)
    )


def _fits(backbone: nn.Module, dtype: torch.dtype) -> bool:
    """Whether no weight is too large for a type as narrow as float16."""
    return all(bool(one.to(dtype).isfinite().all()) for one in backbone.parameters())


@torch.no_grad()
def _run(backbone: nn.Module) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, _SIDE, _SIDE, generator=generator)
    maps: tuple[Tensor, ...] = backbone(image)
    return maps
