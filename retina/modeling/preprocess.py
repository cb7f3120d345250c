"""From uint8 images to what the network sees."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from retina.configuration import Config
from retina.errors import UserError
from retina.geometry.resizing import fit_into, max_size_for, padded_size
from retina.modeling.pixels import IMAGENET, ChannelOrder, PerChannel, Pixels
from retina.structures import Size

LARGE_PIXELS = 2**23
"""Larger images are normalised and resized channel by channel, since in float32 a whole one takes
four times its own memory. On a CPU the last bit may then differ: torch computes one channel and
three in different kernels."""

Length = Annotated[int, Field(ge=1, le=65_536)]
Positive = Annotated[float, Field(gt=0)]


class PreprocessConfig(Config):
    """How images are resized, normalised and padded."""

    min_size: Length = 800
    """Length in pixels that the shorter side is scaled to (with `stretch`: the height)."""
    max_size: Length = 1333
    """Limit in pixels for the longer side, which lowers the scale (with `stretch`: the width)."""
    stretch: bool = False
    """Scale every image to exactly min_size × max_size instead of keeping its aspect ratio."""
    antialias: bool = False
    """Filter before shrinking. The published detectors do not."""
    channel_order: ChannelOrder = IMAGENET.channel_order
    """The order of the channels that the network sees."""
    mean: PerChannel = IMAGENET.mean
    """Subtracted from red, green and blue (always in this order), where 1 is white."""
    std: tuple[Positive, Positive, Positive] = IMAGENET.std
    """What red, green and blue are then divided by, where 1 is white."""
    size_divisor: Length = 32
    """The padded height and width are multiples of this many pixels."""
    pad_to: tuple[Length, Length] | None = None
    """Pad to exactly this height and width instead; it must hold every resized image."""

    def build(self) -> Preprocess:
        """The module, on the CPU."""
        return Preprocess(**dict(self))

    @property
    def pixels(self) -> Pixels:
        """What is made of each pixel."""
        return Pixels(self.channel_order, self.mean, self.std)


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images of several sizes in one batch, ready for the network.

    Attributes:
        images: ``(B, 3, H, W)`` float32, normalised, channels-last, exactly zero in the padding.
        sizes: (height, width) of each image without the padding.
    """

    images: Tensor
    sizes: tuple[Size, ...]

    @property
    def padded_size(self) -> Size:
        """(H, W) of the batch."""
        return int(self.images.shape[2]), int(self.images.shape[3])


class Preprocess(nn.Module):
    """Resizes, normalises and pads; the fields of `PreprocessConfig` are its arguments.

    The padding is zero after normalising: padding a uint8 image with black would be another input.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        min_size: int,
        max_size: int,
        stretch: bool,
        antialias: bool,
        channel_order: ChannelOrder,
        mean: PerChannel,
        std: PerChannel,
        size_divisor: int,
        pad_to: Size | None,
    ) -> None:
        super().__init__()
        self.min_size, self.max_size = min_size, max_size
        self.stretch, self.antialias = stretch, antialias
        self.channel_order = channel_order
        self.size_divisor, self.pad_to = size_divisor, pad_to
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, valid_sizes: Tensor) -> Tensor:
        """Normalise a batch that is already resized and padded; never waits for the device.

        Args:
            images: ``(B, 3, H, W)`` uint8 RGB.
            valid_sizes: ``(B, 2)`` (height, width) without the padding, on the same device.

        Returns:
            ``(B, 3, H, W)`` float32, exactly zero outside the valid sizes.
        """
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) < valid_sizes[:, :1]  # (B, H)
        columns = torch.arange(width, device=images.device) < valid_sizes[:, 1:]  # (B, W)
        inside = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)  # (B, 1, H, W)
        return self.normalise(images).mul_(inside)

    def prepare(self, images: Sequence[Tensor]) -> PreparedImages:
        """Resize, normalise and pad images of any sizes; all arithmetic is float32.

        One image at a time goes to this module's device and is float there.

        Args:
            images: at least one ``(3, h, w)`` uint8 RGB tensor, on any device.

        Raises:
            UserError: a resized image is larger than ``pad_to``.
            ValueError: an image is of another shape or type.
        """
        sizes = tuple(self.input_size(size_of(image)) for image in images)
        height, width = padded_size(sizes, size_divisor=self.size_divisor, pad_to=self.pad_to)
        # Allocated as (B, H, W, 3): channels-last in memory.
        batch = self.mean.new_zeros(len(images), height, width, 3).permute(0, 3, 1, 2)
        for row, image, (image_height, image_width) in zip(batch, images, sizes, strict=True):
            self._resize_into(row[:, :image_height, :image_width], image.to(self.mean.device))
        return PreparedImages(batch, sizes)

    def input_shape(self, sizes: Sequence[Size]) -> tuple[int, int, int, int]:
        """The shape ``(B, 3, H, W)`` of the batch that `prepare` makes of images of these sizes.

        Raises:
            UserError: a resized image is larger than ``pad_to``.
        """
        height, width = padded_size(
            [self.input_size(size) for size in sizes],
            size_divisor=self.size_divisor,
            pad_to=self.pad_to,
        )
        return len(sizes), 3, height, width

    def input_size(self, size: Size) -> Size:
        """The size that an image of this size is resized to."""
        if self.stretch:
            return self.min_size, self.max_size
        return fit_into(size, max_size_for(size, self.min_size, self.max_size))

    def scaled(self, factor: float) -> Preprocess:
        """The same rule for an input that is larger or smaller by a factor.

        Raises:
            UserError: the input has a fixed size.
        """
        if self.pad_to is not None:
            raise UserError(
                f"scale {factor:g}: this detector's input is always "
                f"{self.pad_to[0]} × {self.pad_to[1]} pixels (preprocess.pad_to); leave the scales "
                "of --test-time away"
            )
        scaled = copy.copy(self)
        scaled.min_size = max(1, round(factor * self.min_size))
        scaled.max_size = max(1, round(factor * self.max_size))
        return scaled

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images ``(…, 3, H, W)`` in 0 … 255 to what the network sees, float32."""
        normalised = self._scaled(images, slice(3))
        return normalised if self.channel_order == "rgb" else normalised.flip(-3)

    def _scaled(self, images: Tensor, channels: slice) -> Tensor:
        """Some channels of ``(…, 3, H, W)``, normalised, in the order red, green, blue."""
        # These three roundings, in this order, are torchvision's.
        mean, std = (values.to(images.device)[channels] for values in (self.mean, self.std))
        return (images[..., channels, :, :] / 255).sub_(mean).div_(std)

    def resize(self, image: Tensor) -> Tensor:
        """An image resized to its input size, with nothing else done to it.

        `prepare` normalises first and resizes then, which is the same but for the rounding.

        Args:
            image: ``(3, h, w)`` uint8 RGB, on any device.

        Returns:
            ``(3, height, width)`` float32 in 0 … 255, on this module's device.

        Raises:
            ValueError: the image is of another shape or type.
        """
        size = self.input_size(size_of(image))
        resized = self.mean.new_empty(3, *size)
        moved = image.to(self.mean.device)
        if image.shape == resized.shape:
            return resized.copy_(moved)
        step = 3 if moved[0].numel() <= LARGE_PIXELS else 1
        for first in range(0, 3, step):
            channels = slice(first, first + step)
            self._interpolate_into(resized[channels], moved[channels].float())
        return resized

    def _resize_into(self, target: Tensor, image: Tensor) -> None:
        """Normalise and resize an image ``(3, h, w)`` to the size of its place in the batch."""
        if image.shape == target.shape:
            target.copy_(self.normalise(image))
        elif image.shape[1] * image.shape[2] <= LARGE_PIXELS:
            self._interpolate_into(target, self.normalise(image))
        else:
            for channel in range(3):
                place = channel if self.channel_order == "rgb" else 2 - channel
                one = slice(channel, channel + 1)
                self._interpolate_into(target[place : place + 1], self._scaled(image, one))

    def _interpolate_into(self, target: Tensor, pixels: Tensor) -> None:
        size = int(target.shape[1]), int(target.shape[2])
        target.copy_(
            functional.interpolate(
                pixels.unsqueeze(0), size=size, mode="bilinear", antialias=self.antialias
            ).squeeze(0)
        )


def size_of(image: Tensor) -> Size:
    """Height and width of an image.

    Raises:
        ValueError: it is no ``(3, h, w)`` uint8 tensor.
    """
    if not isinstance(image, Tensor):
        raise ValueError(f"an image must be a tensor, this one is a {type(image).__name__}")
    is_image = image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.uint8
    if not is_image or not image.numel():
        raise ValueError(
            f"an image must be (3, height, width) uint8, this one is {tuple(image.shape)} "
            f"{image.dtype}"
        )
    return int(image.shape[1]), int(image.shape[2])
