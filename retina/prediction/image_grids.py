"""Several pictures in one: truth beside predictions, and image grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from retina.geometry.resizing import fit_into
from retina.prediction.drawing import Picture, draw_detections, draw_targets, font_size
from retina.prediction.picture_size import scaled, size_of
from retina.structures import Categories, Detections, Size, Targets

_BACKGROUND = 32
_SMALLEST_SIDE = 256


def draw_comparison(
    image: Picture,
    targets: Targets,
    detections: Detections,
    categories: Categories,
    *,
    score_threshold: float | None = None,
) -> Picture:
    """What is annotated on the left, what was found on the right, with a line of text above each.

    An image is made larger or smaller first, so that the names can be read: see `scaled`.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        targets: in pixels of the image.
        detections: in pixels of the image.
        categories: give the names.
        score_threshold: leaves out detections that score less.
    """
    picture = scaled(image, smallest_side=_SMALLEST_SIDE)
    targets = targets.rescaled(size_of(image), size_of(picture))
    detections = detections.rescaled(size_of(image), size_of(picture))
    shown = detections if score_threshold is None else detections.at_least(score_threshold)
    num_crowds = int(targets.is_crowd.sum())
    truth = f"truth: {len(targets) - num_crowds}" + (f" and {num_crowds} crowd" * bool(num_crowds))
    least = "" if score_threshold is None else f" from {score_threshold:g} on"
    left = _captioned(draw_targets(picture, targets, categories), truth)
    right = _captioned(
        draw_detections(picture, shown, categories), f"predictions{least}: {len(shown)}"
    )
    gap = np.full((left.shape[0], max(4, left.shape[1] // 160), 3), _BACKGROUND, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def image_grid(
    images: Sequence[Picture], *, columns: int, cell: Size = (360, 480), gap: int = 6
) -> Picture:
    """Pictures in rows, each scaled to fit its cell.

    Args:
        images: at least one.
        columns: cells of a row; the grid is narrower if there are fewer pictures.
        cell: height and width of a cell.
        gap: pixels between cells and around them.
    """
    if not images or columns < 1:
        raise ValueError(f"an image grid of {len(images)} pictures in {columns} columns")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    height, width = cell
    grid = np.full(
        (gap + rows * (height + gap), gap + columns * (width + gap), 3), _BACKGROUND, np.uint8
    )
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        new_height, new_width = fit_into((image.shape[0], image.shape[1]), cell)
        scaled = PIL.Image.fromarray(image).resize(
            (new_width, new_height), PIL.Image.Resampling.LANCZOS
        )
        top = gap + row * (height + gap) + (height - new_height) // 2
        left = gap + column * (width + gap) + (width - new_width) // 2
        grid[top : top + new_height, left : left + new_width] = np.array(scaled)
    return grid


def _captioned(picture: Picture, text: str) -> Picture:
    """The picture below a line of text; a narrow one stands on a ground as wide as the text."""
    height, width = picture.shape[:2]
    size = font_size((height, width), num_boxes=1)
    font = ImageFont.load_default(size=size)
    bar, least = round(1.8 * size), math.ceil(font.getlength(text)) + size
    whole = PIL.Image.new("RGB", (max(width, least), bar + height), (_BACKGROUND,) * 3)
    ImageDraw.Draw(whole).text((size // 2, round(0.3 * size)), text, (235, 235, 235), font)
    whole.paste(PIL.Image.fromarray(picture), (0, bar))
    return np.array(whole)
