"""The pixels of a picture out of bytes that a stranger has sent."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from retina.datasets.image_files import identify, one_clear_error
from retina.datasets.images import decode_identified
from retina.datasets.jpeg import num_scans
from retina.errors import TooManyPixelsError, UnreadableImageError
from retina.serving.limits import Limits, Refusal

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF")
"""What is decoded, by Pillow's names; an MPO is the JPEG of a phone that holds a preview, too."""

FORMAT_NAMES = ("JPEG", "PNG", "WebP", "BMP", "TIFF")
"""The same for people."""

MAX_SCANS = 64
"""Of a JPEG: a progressive one has about ten, and each costs a pass over all pixels, though it may
be a few bytes long."""

_NAME = "the picture"


def decode_picture(data: bytes, limits: Limits) -> Tensor:
    """``(3, H, W)`` uint8 RGB, with the EXIF orientation applied.

    What it is and how large is read from its head, before any pixel is decoded.

    Raises:
        Refusal: it is of no format of `FORMATS`, has too many pixels, or cannot be decoded.
        MemoryError: there is no memory for it.
    """
    try:
        with one_clear_error(_NAME):
            opened = identify(io.BytesIO(data), _NAME, FORMATS)
        if opened is None:
            *most, last = FORMAT_NAMES
            raise Refusal(415, f"this is no {', '.join(most)} or {last}, or it is badly damaged")
        _refuse_bombs(opened, data, limits)
        pixels = decode_identified(opened, data, _NAME)
    except TooManyPixelsError:
        raise _too_large(limits) from None
    except UnreadableImageError as error:
        raise Refusal(422, str(error).removesuffix(_FIX)) from None
    return torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)


_FIX = "; copy it again, or remove it from the set"
"""What the message for files ends with, which makes no sense here."""


def _refuse_bombs(opened: PilImage.Image, data: bytes, limits: Limits) -> None:
    if opened.width * opened.height > limits.max_pixels:
        raise _too_large(limits)
    if opened.format in ("JPEG", "MPO") and num_scans(data) > MAX_SCANS:
        raise Refusal(422, f"the JPEG has more than {MAX_SCANS} scans; save it anew")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        f"the picture has more than {limits.max_pixels} pixels; make it smaller, or send tiles",
    )
