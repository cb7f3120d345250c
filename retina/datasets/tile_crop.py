"""Training on tiles: a part of a large image at its own scale, as predicting on tiles shows it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retina.datasets.dataset import AnnotatedImage
from retina.datasets.visibility import VisibilityRule, clip

WHOLE = 0.2
"""How often an image is left whole, since predicting on tiles looks at the whole image, too."""

AROUND_AN_OBJECT = 0.7
"""How often a tile is laid around an object, since most of a large image is often empty."""


def tile_crop(
    annotated: AnnotatedImage, tile: int, *, generator: np.random.Generator, rule: VisibilityRule
) -> AnnotatedImage:
    """A random tile of an image, or the whole of it.

    Args:
        annotated: the image; one that is no larger than a tile stays as it is.
        tile: the sides in pixels; where the image is smaller, its own.
        generator: the only source of randomness.
        rule: which cut boxes stay.
    """
    height, width = (min(tile, side) for side in annotated.size)
    if (height, width) == annotated.size or generator.random() < WHOLE:
        return annotated
    boxes = annotated.boxes.astype(np.float64)
    y, x = generator.random(2) * (np.array(annotated.size) - (height, width) + 1)
    if len(boxes) and generator.random() < AROUND_AN_OBJECT:
        # Anywhere around its centre, and within the image.
        x1, y1, x2, y2 = boxes[generator.integers(len(boxes))]
        y = (y1 + y2) / 2 - generator.random() * height
        x = (x1 + x2) / 2 - generator.random() * width
    top = int(np.clip(y, 0, annotated.size[0] - height))
    left = int(np.clip(x, 0, annotated.size[1] - width))
    boxes, visibility = clip(boxes - [left, top, left, top], (height, width))
    keep = rule.keeps(boxes, visibility, annotated.is_crowd)
    return AnnotatedImage(
        image=np.ascontiguousarray(annotated.image[top : top + height, left : left + width]),
        boxes=boxes[keep].astype(np.float32),
        labels=annotated.labels[keep],
        is_crowd=annotated.is_crowd[keep],
    )


def tiles_of(
    load: Callable[[int], AnnotatedImage],
    tile: int,
    *,
    generator: np.random.Generator,
    rule: VisibilityRule,
) -> Callable[[int], AnnotatedImage]:
    """Gives a random tile of each image that ``load`` reads."""
    return lambda index: tile_crop(load(index), tile, generator=generator, rule=rule)
