"""How large pictures for people are, whatever the size of their images."""

from __future__ import annotations

import math

import cv2
import numpy as np

from retina.geometry.resizing import fit_into
from retina.prediction.drawing import Picture
from retina.structures import Size

LOGGED_SIDE = 1024
"""The longer side, in pixels, of an image in a log or a report: at most this."""

WRITTEN_SIDE = 8192
"""The same of a picture that `retina predict` writes: photos keep their size, panoramas and scans
are made smaller. (A JPEG can have 65,500 pixels a side.)"""


def scaled(image: Picture, *, smallest_side: int, longest_side: int = LOGGED_SIDE) -> Picture:
    """An image made large enough to write on, and small enough to look at.

    Args:
        image: ``(H, W, 3)``.
        smallest_side: a smaller one is enlarged by a whole factor, so that its shorter side has at
            least this many pixels, as far as the longer one stays within its limit.
        longest_side: a larger one is shrunk to it, before anything is drawn.
    """
    height, width = size_of(image)
    if max(height, width) > longest_side:
        height, width = fit_into((height, width), (longest_side, longest_side))
        smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(smaller, dtype=np.uint8)
    factor = min(math.ceil(smallest_side / min(height, width)), longest_side // max(height, width))
    if factor == 1:
        return image
    return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))


def size_of(picture: Picture) -> Size:
    """Height and width."""
    return int(picture.shape[0]), int(picture.shape[1])
