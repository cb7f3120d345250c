"""The anchors: the boxes that a dense detector answers for, at every cell of every level.

RetinaNet (Lin et al. 2017, section 4): areas of 32² to 512² on P3 to P7, each at three scales
within an octave and three aspect ratios. The reference implementations differ in the rounding of
the base boxes, in where in its cell an anchor is centred, and in the stride of the coarse levels of
a padded image; each of these is a field here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from retina.configuration import Config
from retina.errors import UserError
from retina.structures import Anchors, Size
from retina.wording import counted

Positive = Annotated[float, Field(gt=0)]
StrideSource = Literal["fixed", "padded_size"]

_CACHED_SIZES = 32
"""How many padded sizes' anchors are kept; others are made anew, without waiting for a device."""


class AnchorConfig(Config):
    """Sizes, shapes and places of the anchors."""

    sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side in pixels of the square anchor of scale 1, one for each pyramid level, finest first."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Factors on the size, for every level."""
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height over width, at constant area, for every level."""
    scales_per_level: tuple[tuple[Positive, ...], ...] | None = None
    """Own scales for each level in the place of `scales`; every level needs the same number."""
    ratios_per_level: tuple[tuple[Positive, ...], ...] | None = None
    """Own ratios for each level in the place of `ratios`; every level needs the same number."""
    center_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where in its cell an anchor is centred, in strides: 0 the cell's corner, 0.5 its middle."""
    round_sizes: bool = False
    """Cut size × scale to whole pixels and round the base boxes' coordinates, as torchvision."""
    stride_source: StrideSource = "fixed"
    """`fixed`: the level's own stride (8, 16 …). `padded_size`: padded image size // level size, as
    torchvision; smaller than the level's stride where the image is no multiple of it."""

    @model_validator(mode="after")
    def _same_number_on_every_level(self) -> AnchorConfig:
        for name in ("scales_per_level", "ratios_per_level"):
            levels: tuple[tuple[float, ...], ...] | None = getattr(self, name)
            if levels is None:
                continue
            if len(levels) != len(self.sizes):
                raise ValueError(f"{name} has {len(levels)} levels, sizes has {len(self.sizes)}")
            if len({len(level) for level in levels}) != 1 or not levels[0]:
                raise ValueError(
                    f"{name}: the heads are shared by all levels, so each needs the same number "
                    f"(at least 1), not {[len(level) for level in levels]}"
                )
        return self

    def build(self, strides: Sequence[int]) -> AnchorGenerator:
        """The generator for pyramid levels of these strides.

        Raises:
            UserError: there are not as many sizes as levels.
        """
        if len(strides) != len(self.sizes):
            raise UserError(
                f"anchors.sizes has {counted(len(self.sizes), 'entry')}, the pyramid has "
                f"{len(strides)} "
                f"levels (strides {', '.join(map(str, strides))}): give one size for each"
            )
        num_levels = len(self.sizes)
        return AnchorGenerator(
            sizes=self.sizes,
            scales=self.scales_per_level or (self.scales,) * num_levels,
            ratios=self.ratios_per_level or (self.ratios,) * num_levels,
            strides=strides,
            center_offset=self.center_offset,
            round_sizes=self.round_sizes,
            stride_source=self.stride_source,
        )


class AnchorGenerator(nn.Module):
    """Lays the same base boxes over every cell of a level; has no parameters and no state.

    Args:
        sizes: in pixels, one for each level.
        scales: for each level, factors on its size.
        ratios: for each level, height over width.
        strides: of the levels, in pixels.
        center_offset: see `AnchorConfig`, as for the next two.
        round_sizes: torchvision's whole-pixel base boxes.
        stride_source: whose stride separates the cells.
    """

    num_per_cell: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self,
        *,
        sizes: Sequence[float],
        scales: Sequence[Sequence[float]],
        ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        center_offset: float,
        round_sizes: bool,
        stride_source: StrideSource,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.center_offset = center_offset
        self.stride_source = stride_source
        # On the host even when the network is built on another device: they are made only once.
        self._base_boxes = tuple(
            base_boxes(size, level_scales, level_ratios, round_sizes=round_sizes)
            for size, level_scales, level_ratios in zip(sizes, scales, ratios, strict=True)
        )
        self.num_per_cell = tuple(len(boxes) for boxes in self._base_boxes)
        # One copy a device: copying to an accelerator waits for it, so it is done only once.
        self._base_boxes_on: dict[torch.device, tuple[Tensor, ...]] = {}
        self._cache: OrderedDict[tuple[object, ...], Anchors] = OrderedDict()

    def forward(
        self, feature_shapes: Sequence[Size], padded_size: Size, device: torch.device | str
    ) -> Anchors:
        """The anchors of all levels for a batch of images padded to one size.

        Args:
            feature_shapes: (H, W) of each level, finest first.
            padded_size: (height, width) of the images.
            device: where the anchors shall be.

        Returns:
            ``(R, 4)`` float32, also under autocast: level by level, row by row, cell by cell, and
            in a cell ratio by ratio with the scales inside, which is torchvision's order.
        """
        key = (tuple(feature_shapes), tuple(padded_size), str(device))
        anchors = self._cache.get(key)
        if anchors is None:
            # A tensor made in inference mode could not take part in a later training step.
            with torch.inference_mode(False), torch.no_grad():
                anchors = self._generate(feature_shapes, padded_size, torch.device(device))
            self._cache[key] = anchors
            if len(self._cache) > _CACHED_SIZES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return anchors

    def _generate(
        self, feature_shapes: Sequence[Size], padded_size: Size, device: torch.device
    ) -> Anchors:
        levels = self.levels(feature_shapes, padded_size, device)
        return Anchors(
            boxes=torch.cat(levels),
            num_per_level=tuple(len(level) for level in levels),
            num_per_cell=self.num_per_cell,
        )

    def levels(
        self, feature_shapes: Sequence[Size], padded_size: Size, device: torch.device
    ) -> list[Tensor]:
        """The boxes of each level, made anew; the sizes may be such as a trace leaves open."""
        if device not in self._base_boxes_on:
            self._base_boxes_on[device] = tuple(boxes.to(device) for boxes in self._base_boxes)
        return [
            self._generate_level(boxes, shape, self._cell_size(level, shape, padded_size))
            for level, (boxes, shape) in enumerate(
                zip(self._base_boxes_on[device], feature_shapes, strict=True)
            )
        ]

    def _cell_size(self, level: int, shape: Size, padded_size: Size) -> Size:
        if self.stride_source == "fixed":
            return self.strides[level], self.strides[level]
        return padded_size[0] // shape[0], padded_size[1] // shape[1]

    def _generate_level(self, boxes: Tensor, shape: Size, cell_size: Size) -> Tensor:
        rows, columns = (
            (torch.arange(count, dtype=torch.float32, device=boxes.device) + self.center_offset)
            * stride
            for count, stride in zip(shape, cell_size, strict=True)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")  # (H, W)
        centers = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
        return (centers[:, :, None] + boxes).reshape(-1, 4)  # (H, W, A, 4) -> (H·W·A, 4)


def base_boxes(
    size: float, scales: Sequence[float], ratios: Sequence[float], *, round_sizes: bool
) -> Tensor:
    """The anchors of one cell, around the origin: ``(A, 4)`` float32, scale by scale in a ratio."""
    # torchvision computes and rounds in float32; exact sizes are worth double precision.
    dtype = torch.float32 if round_sizes else torch.float64
    sides = [int(size * scale) if round_sizes else size * scale for scale in scales]
    side = torch.tensor(sides, dtype=dtype, device="cpu")
    height_ratio = torch.tensor(ratios, dtype=dtype, device="cpu").sqrt()
    width_ratio = 1 / height_ratio
    width = (width_ratio[:, None] * side).flatten()
    height = (height_ratio[:, None] * side).flatten()
    boxes = torch.stack([-width, -height, width, height], dim=1) / 2
    return (boxes.round() if round_sizes else boxes).float()
