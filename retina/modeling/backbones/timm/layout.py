"""Which submodules of a network of timm give its feature maps, found by trying it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from retina.errors import UserError
from retina.modeling.backbones.timm.weights import REFUSALS, check_name, timm_package
from retina.wording import first_line

_STRIDES = (4, 8, 16, 32)
_TRIED_SIZE = (128, 192)
"""Height and width in pixels of the image that shows which maps a network gives."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a network of timm gives.

    Attributes:
        indices: timm's numbers of its feature maps C3 to C5, and of C2 where it has one.
        channels: their widths.
        ends: the submodule that gives each of them, as timm calls it.
        stem_end: the submodule that gives the last finer map; None where there is none.
        is_channels_last: whether a map is ``(B, H, W, C)``.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    ends: tuple[str, ...]
    stem_end: str | None
    is_channels_last: bool


@cache
def layout_of(name: str) -> Layout:
    """Found by trying a network without memory.

    Raises:
        UserError: the network gives no such maps, or not of every image.
    """
    check_name(name)
    with torch.device("meta"):
        network = feature_network(name).eval()
        info = network.feature_info
        strides, channels, names = info.reduction(), info.channels(), info.module_name()
        last = {stride: index for index, stride in enumerate(strides)}
        if not set(_STRIDES[1:]) <= set(last):
            raise UserError(
                f"model.backbone.name: timm's {name} gives feature maps of the strides "
                f"{', '.join(map(str, strides))}; 8, 16 and 32 are needed"
            )
        used = {stride: last[stride] for stride in _STRIDES if stride in last}
        finer = [index for stride, index in last.items() if stride < _STRIDES[0]]
        layout = Layout(
            indices=tuple(info.out_indices[index] for index in used.values()),
            channels=tuple(channels[index] for index in used.values()),
            ends=tuple(names[index] for index in used.values()),
            stem_end=names[finer[-1]] if finer else None,
            is_channels_last=getattr(network, "output_fmt", None) == "NHWC",
        )
        _check_maps(name, network, used, layout.is_channels_last)
    return layout


def _check_maps(
    name: str, network: nn.Module, used: Mapping[int, int], is_channels_last: bool
) -> None:
    height, width = _TRIED_SIZE
    try:
        with torch.no_grad():
            maps = network(torch.zeros(1, 3, height, width))
    except REFUSALS as error:
        raise UserError(
            f"model.backbone.name: timm's {name} takes no image of {height}×{width} pixels, and a "
            f"detector has images of every size ({first_line(error)})"
        ) from None
    for stride, index in used.items():
        shape = tuple(maps[index].shape)
        size = shape[1:3] if is_channels_last else shape[2:4]
        if size != (height // stride, width // stride):
            raise UserError(
                f"model.backbone.name: timm's {name} gives a map of {size[0]}×{size[1]} cells at "
                f"stride {stride} of an image of {height}×{width} pixels, not "
                f"{height // stride}×{width // stride}: its cells do not lie where anchors would"
            )


def feature_network(name: str, *, drop_path_rate: float = 0.0, **kwargs: Any) -> Any:
    """A network of timm with random weights, which gives feature maps.

    Raises:
        UserError: there is none of this name.
    """
    kwargs |= {"pretrained": False, "features_only": True}
    timm = timm_package()
    try:
        try:
            return timm.create_model(name, drop_path_rate=drop_path_rate, **kwargs)
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            if drop_path_rate:
                raise UserError(
                    f"model.backbone.drop_path_rate: timm's {name} has no paths to drop; give 0"
                ) from None
            return timm.create_model(name, **kwargs)
    except UserError:
        raise
    except REFUSALS as error:
        raise UserError(
            f"model.backbone.name: timm's {name} gives no feature maps ({first_line(error)})"
        ) from None


def plain(name: str) -> str:
    """A name by which a classifier's submodule is found among the features'.

    There `stages.0` may be called `stages_0`.
    """
    return name.replace("_", ".")


def wrapper_of(network: nn.Module) -> str:
    """What timm puts before all names of a network that it leaves as it is."""
    only, *others = (name for name, _ in network.named_children())
    return f"{only}." if only in ("model", "body") and not others else ""


def stages_of(network: nn.Module, layout: Layout) -> tuple[tuple[str, ...], ...] | None:
    """The submodules of the five stages by name; None where the network is no sequence of them."""
    wrapper = wrapper_of(network)
    order = list(_in_order(network.get_submodule(wrapper[:-1]), layout))
    found = [plain(name) for name in order]
    ends = [plain(end) for end in layout.ends]
    stem_end = None if layout.stem_end is None else plain(layout.stem_end)
    if any(end not in found for end in ends) or (stem_end is not None and stem_end not in found):
        return None
    names = [wrapper + name for name in order]
    first = found.index(ends[0]) if stem_end is None else found.index(stem_end) + 1
    borders = [0, first, *([first] * (4 - len(ends))), *(found.index(end) + 1 for end in ends)]
    covered = {id(p) for name in names for p in network.get_submodule(name).parameters()}
    if borders != sorted(borders) or any(id(p) not in covered for p in network.parameters()):
        return None
    borders[-1] = len(names)
    return tuple(tuple(names[start:stop]) for start, stop in pairwise(borders))


def _in_order(network: nn.Module, layout: Layout) -> Iterator[str]:
    """Names of the submodules in the order they are run; a sequence that a map is from, apart."""
    ends = [plain(end) for end in (*layout.ends, layout.stem_end or "")]
    for name, child in network.named_children():
        if any(end.startswith(plain(name) + ".") for end in ends):
            yield from (f"{name}.{inner}" for inner, _ in child.named_children())
        else:
            yield name
