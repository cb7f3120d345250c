"""The pictures of a report, made to fit into its page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

_STEPS = ((640, 80), (560, 75), (480, 72), (400, 68), (320, 60))
"""The longest side in pixels and JPEG's quality, tried in this order."""

_BYTES_AROUND = 80
"""What the page holds of a picture beside its bytes: its key and the start of its address."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as JPEG, and its size in pixels, which need not be that of its image."""

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FittedPictures:
    """The pictures that fit, by their keys, and the number of those that do not."""

    pictures: dict[str, Picture]
    num_left_out: int


def fit_pictures(pictures: Mapping[str, Picture], max_bytes: int) -> FittedPictures:
    """Make pictures smaller until they fit together, and leave out the last ones if they do not.

    Args:
        pictures: the most important ones first.
        max_bytes: for all of them as base64, by which they grow by a third.

    Returns:
        The pictures as they are, where they fit. All are made smaller alike, to 320 pixels at
        least.
    """
    fitting = dict(pictures)
    for max_side, quality in _STEPS:
        if sum(map(_size, fitting.values())) <= max_bytes:
            return FittedPictures(fitting, 0)
        fitting = {key: _smaller(picture, max_side, quality) for key, picture in fitting.items()}
    kept: dict[str, Picture] = {}
    for key, picture in fitting.items():
        max_bytes -= _size(picture)
        if max_bytes < 0:
            break
        kept[key] = picture
    return FittedPictures(kept, len(pictures) - len(kept))


def _size(picture: Picture) -> int:
    return (len(picture.jpeg) + 2) // 3 * 4 + _BYTES_AROUND


def _smaller(picture: Picture, max_side: int, quality: int) -> Picture:
    """The picture written anew; itself where that is no smaller."""
    image = Image.open(io.BytesIO(picture.jpeg)).convert("RGB")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True)
    if stream.tell() >= len(picture.jpeg):
        return picture
    return Picture(stream.getvalue(), *image.size)
