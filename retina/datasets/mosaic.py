"""Four images in one, as YOLOv4 introduced it (Bochkovskiy et al. 2020, section 3.3).

albumentations has a mosaic too, but of one size for all images; this one keeps the size of the
image it starts from, so that it still fits its batch (by its orientation above all).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from retina.datasets.dataset import AnnotatedImage
from retina.datasets.visibility import VisibilityRule, clip

CENTER_RANGE = (0.3, 0.7)
"""Where the four images meet, as a fraction of the height and of the width."""

MAX_ZOOM = 2.0
"""How much larger than just covering its tile an image may be shown."""


def mosaic(
    annotated: AnnotatedImage,
    *,
    generator: np.random.Generator,
    load_partner: Callable[[int], AnnotatedImage],
    num_images: int,
    rule: VisibilityRule,
) -> AnnotatedImage:
    """An image of the same size, made of this one and three others that meet at a random point.

    Each fills its tile with a random part of itself: scaled to just cover the tile, or up to
    `MAX_ZOOM` times larger, and with its aspect ratio kept to the pixel.

    Args:
        annotated: one of the four; it takes a random tile.
        generator: the only source of randomness.
        load_partner: reads an image of the set.
        num_images: of the set.
        rule: which cut boxes stay.
    """
    height, width = annotated.size
    middle_y = round(height * generator.uniform(*CENTER_RANGE))
    middle_x = round(width * generator.uniform(*CENTER_RANGE))
    partners = [load_partner(int(index)) for index in generator.integers(num_images, size=3)]
    sources = [annotated, *partners]
    image = np.empty((height, width, 3), dtype=np.uint8)
    parts = []
    corners = [
        (y, x)
        for y in ((0, middle_y), (middle_y, height))
        for x in ((0, middle_x), (middle_x, width))
    ]
    for source, (rows, columns) in zip(generator.permutation(4), corners, strict=True):
        tile = image[slice(*rows), slice(*columns)]
        if not tile.size:
            continue
        part = _part(sources[source], tile.shape[:2], generator, rule)
        tile[:] = part.image
        boxes = part.boxes + np.array([columns[0], rows[0]] * 2, dtype=np.float32)
        parts.append((boxes, part.labels, part.is_crowd))
    boxes, labels, is_crowd = (np.concatenate(column) for column in zip(*parts, strict=True))
    return AnnotatedImage(image, boxes.astype(np.float32), labels, is_crowd)


def _part(
    source: AnnotatedImage,
    tile: tuple[int, int],
    generator: np.random.Generator,
    rule: VisibilityRule,
) -> AnnotatedImage:
    """A random part of an image, scaled to fill a tile."""
    (height, width), (tile_height, tile_width) = source.size, tile
    scale = max(tile_height / height, tile_width / width)
    scale *= float(np.exp(generator.uniform(0, np.log(MAX_ZOOM))))
    part_height = min(height, max(1, round(tile_height / scale)))
    part_width = min(width, max(1, round(tile_width / scale)))
    top = int(generator.integers(height - part_height + 1))
    left = int(generator.integers(width - part_width + 1))
    pixels = source.image[top : top + part_height, left : left + part_width]
    image = cv2.resize(pixels, (tile_width, tile_height), interpolation=cv2.INTER_LINEAR)
    boxes, visibility = clip(
        source.boxes.astype(np.float64) - [left, top, left, top], (part_height, part_width)
    )
    boxes *= np.array([tile_width / part_width, tile_height / part_height] * 2)
    keep = rule.keeps(boxes, visibility, source.is_crowd)
    return AnnotatedImage(
        image=np.asarray(image, dtype=np.uint8),
        boxes=boxes[keep].astype(np.float32),
        labels=source.labels[keep],
        is_crowd=source.is_crowd[keep],
    )
