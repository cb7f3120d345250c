"""What a program may give as an image: a path, a Pillow image, an array or a tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from io import IOBase
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from retina.datasets.images import convert_image, decode_image
from retina.datasets.large_tiff import LargeTiff, open_large_tiff
from retina.errors import UserError, path_given

ImageSource = npt.NDArray[np.uint8] | Tensor | PIL.Image.Image | PathLike[str] | str | LargeTiff
"""One image; see `as_tensor` and `as_large`."""

_BYTES = bytes | bytearray | memoryview
_CHANNELS = (1, 3, 4)
_ACCEPTED = "give a path, a Pillow image, a uint8 array (height, width, 3) or a tensor"


def listed(images: ImageSource | Sequence[ImageSource]) -> Sequence[object]:
    """One image or many as a sequence of them; a fourth dimension is a batch.

    Raises:
        UserError: it is neither an image nor a list.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":  # of paths
        return list(images.reshape(-1).tolist())
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return list(images)
    if isinstance(images, list | tuple):
        return images
    if _is_image(images):
        return [images]
    if isinstance(images, Iterable) and not isinstance(images, _BYTES | IOBase | Mapping):
        kind = type(images).__name__
        raise UserError(f"images: a {kind} is no list; make one of it with list(…)")
    raise UserError(f"images: {_stranger(images)}")


def as_tensor(image: object, name: str) -> Tensor:
    """``(3, h, w)`` uint8 RGB.

    Args:
        image: a path; a Pillow image of any mode; a uint8 array ``(h, w)``, ``(h, w, 1)``,
            ``(h, w, 3)`` or ``(h, w, 4)``; or a tensor ``(C, h, w)``, C being 1, 3 or 4, uint8 or
            float in 0 … 1. The fourth channel is alpha, which is dropped.
        name: which image it is, for messages.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    if isinstance(image, Tensor):
        return _of_tensor(image, name)
    if isinstance(image, np.ndarray):
        pixels = _of_array(image, name)
    elif isinstance(image, PIL.Image.Image):
        pixels = convert_image(image, name)
    elif isinstance(image, str | PathLike):
        pixels = _of_path(path_given(image, name), name)
    else:
        raise UserError(f"{name}: {_stranger(image)}")
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)


def as_large(image: object, name: str) -> Tensor | LargeTiff:
    """The same for who looks at tiles: a large file that can be read by parts is only opened.

    Args:
        image: as for `as_tensor`, or such a file.
        name: which image it is, for messages.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    if isinstance(image, LargeTiff):
        return image
    if isinstance(image, str | PathLike) and not os.path.isdir(image):  # noqa: PTH112
        large = open_large_tiff(path_given(image, name))
        if large is not None:
            return large
    return as_tensor(image, name)


def _is_image(given: object) -> TypeGuard[ImageSource]:
    return isinstance(given, np.ndarray | Tensor | PIL.Image.Image | PathLike | str | LargeTiff)


def _stranger(given: object) -> str:
    """What is wrong with something that is no image."""
    if given is None:
        return "None is no image; cv2.imread gives it where it cannot read a file: check the path"
    if isinstance(given, _BYTES):
        return "bytes are no image; open them with PIL.Image.open(io.BytesIO(…))"
    if isinstance(given, list | tuple):
        return "a list within the list is no image; give one flat list"
    return f"{type(given).__name__} is no image; {_ACCEPTED}"


def _of_path(path: Path, name: str) -> npt.NDArray[np.uint8]:
    if os.path.isdir(path):  # noqa: PTH112  # no error where the name is too long
        raise UserError(
            f"{name}: {path} is a folder; give the files in it, such as [*Path(…).glob('*.jpg')]"
        )
    return decode_image(path)


def _of_array(image: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    about = f"{name}: an array {image.shape} of {image.dtype}"
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _CHANNELS or not image.size:
        fix = "it must be (height, width, 3) in RGB order, (height, width) or (height, width, 4)"
        if image.ndim == 3 and image.size and image.shape[0] in _CHANNELS:
            fix = "its channels come first; turn it with .transpose(1, 2, 0)"
        raise UserError(f"{about} is no image; {fix}")
    if image.dtype != np.uint8:
        raise UserError(
            f"{about} is no image; it must be uint8, 0 to 255: for values in 0 … 1 that is "
            "(255 * array).round().astype('uint8')"
        )
    pixels = image.reshape(*image.shape[:2], channels)
    return np.repeat(pixels, 3, axis=2) if channels == 1 else pixels[:, :, :3]


def _of_tensor(image: Tensor, name: str) -> Tensor:
    about = f"{name}: a tensor {tuple(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
    if image.ndim != 3 or image.shape[0] not in _CHANNELS or not image.numel():
        fix = "it must be (3, height, width) in RGB order; 1 or 4 channels will do"
        if image.ndim == 3 and image.numel() and image.shape[2] in _CHANNELS:
            fix = "its channels come last; turn it with .permute(2, 0, 1)"
        raise UserError(f"{about} is no image; {fix}")
    pixels = image.detach()[:3]
    if pixels.is_floating_point():
        levels = pixels.float() * 255
        low, high = (float(bound) for bound in levels.aminmax())
        if not (low >= -0.5 and high <= 255.5):  # also true of NaN
            raise UserError(
                f"{about} with values from {low / 255:.4g} to {high / 255:.4g} is no image; floats "
                "must lie within 0 … 1, not normalised: for 0 to 255 that is tensor / 255"
            )
        pixels = levels.round().clamp(0, 255).to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise UserError(f"{about} is no image; it must be uint8, or float within 0 … 1")
    return pixels.expand(3, -1, -1)
