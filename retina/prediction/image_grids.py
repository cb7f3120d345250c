"""Several pictures in one: truth beside predictions, and image grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from retina.geometry.resizing import fit_into
from retina.prediction.drawing import Picture, draw_detections, draw_targets, font_size
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

    A picture whose shorter side is under 256 pixels is enlarged by a whole factor first, so that
    the names can be read.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        targets: in pixels of the image.
        detections: in pixels of the image.
        categories: give the names.
        score_threshold: leaves out detections that do not score more.
    """
    large, factor = enlarged(image, _SMALLEST_SIDE)
    targets = replace(targets, boxes=targets.boxes * factor)
    detections = replace(detections, boxes=detections.boxes * factor)
    shown = detections if score_threshold is None else detections.above(score_threshold)
    num_crowds = int(targets.is_crowd.sum())
    truth = f"truth: {len(targets) - num_crowds}" + (f" and {num_crowds} crowd" * bool(num_crowds))
    above = "" if score_threshold is None else f" above {score_threshold:g}"
    left = _captioned(draw_targets(large, targets, categories), truth)
    right = _captioned(
        draw_detections(large, shown, categories), f"predictions{above}: {len(shown)}"
    )
    gap = np.full((left.shape[0], max(4, left.shape[1] // 160), 3), _BACKGROUND, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def enlarged(image: Picture, smallest_side: int) -> tuple[Picture, int]:
    """A picture large enough to write on: enlarged by a whole factor, and the factor.

    Args:
        image: ``(H, W, 3)``.
        smallest_side: what the shorter side has at least, in pixels.
    """
    factor = math.ceil(smallest_side / min(image.shape[:2]))
    return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1)), factor


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
    height, width = picture.shape[:2]
    size = font_size((height, width), num_boxes=1)
    bar = PIL.Image.new("RGB", (width, round(1.8 * size)), (_BACKGROUND,) * 3)
    font = ImageFont.load_default(size=size)
    while text and font.getlength(text) > width - size:
        text = text[1:]  # the end matters more: the counts stand there
    ImageDraw.Draw(bar).text((size // 2, round(0.3 * size)), text, fill=(235, 235, 235), font=font)
    return np.concatenate([np.array(bar), picture], axis=0)
