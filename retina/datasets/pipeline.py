"""Applies transforms to an image and its boxes.

The transforms are albumentations', but its own handling of boxes is not used: it raises on boxes
without area or outside the image in mid-training, forgets how much of a box earlier transforms
have cut away, drops what is left of crowd regions, and gives all transforms of a pipeline that is
seeded anew the same random numbers, so that two flips of one half each always happen together.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from retina.datasets.dataset import AnnotatedImage
from retina.datasets.mosaic import mosaic
from retina.datasets.tile_crop import tile_crop, tiles_of
from retina.datasets.visibility import VisibilityRule, clip
from retina.errors import UserError


class Pipeline:
    """A tile, a mosaic, then the transforms in order; implements `Augmentation`.

    It can be sent to a spawned worker, which builds the transforms anew.

    Args:
        compose: makes albumentations' composition of the transforms; must be picklable.
        mosaic_probability: how often to begin with a mosaic.
        rule: which cut boxes stay.
        tile: take a random part of an image, with sides of so many pixels; None takes all of it.
    """

    def __init__(
        self,
        compose: Callable[[], Any],
        *,
        mosaic_probability: float = 0.0,
        rule: VisibilityRule,
        tile: int | None = None,
    ) -> None:
        self._make = compose
        self._tile = tile
        self._mosaic_probability = mosaic_probability
        self._rule = rule
        self._compose: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compose": None}

    def __call__(
        self,
        annotated: AnnotatedImage,
        *,
        seed: int,
        load_partner: Callable[[int], AnnotatedImage],
        num_images: int,
    ) -> AnnotatedImage:
        """The changed image, the same for the same seed.

        Raises:
            UserError: a transform cannot be applied to this image (a crop larger than it, say).
        """
        generator = np.random.default_rng(seed)
        if self._tile is not None:
            annotated = tile_crop(annotated, self._tile, generator=generator, rule=self._rule)
            load_partner = tiles_of(load_partner, self._tile, generator=generator, rule=self._rule)
        if generator.random() < self._mosaic_probability:
            annotated = mosaic(
                annotated,
                generator=generator,
                load_partner=load_partner,
                num_images=num_images,
                rule=self._rule,
            )
        return self._transform(annotated, generator, random.Random(seed))

    def _transform(
        self, annotated: AnnotatedImage, generator: np.random.Generator, py_random: random.Random
    ) -> AnnotatedImage:
        if self._compose is None:
            self._compose = self._make()
        # One stream for all transforms; a seed for each would make them all draw the same numbers.
        self._compose.set_random_state(generator, py_random)
        image = annotated.image
        # Columns: relative x1 y1 x2 y2, label, row of `annotated`, visible fraction.
        count = len(annotated.labels)
        table = np.empty((count, 7))
        table[:, :4] = annotated.boxes
        table[:, :4] /= _scale(image)
        table[:, 4], table[:, 5], table[:, 6] = annotated.labels, np.arange(count), 1.0
        table = _clipped(table)
        for transform in self._compose.transforms:
            try:
                result = transform(image=image, bboxes=table)
            except Exception as error:
                raise UserError(
                    f"the augmentation {type(transform).__name__} cannot be applied to an image of "
                    f"{image.shape[0]}×{image.shape[1]} pixels (height × width): {error}"
                ) from error
            image = result["image"]
            if result["bboxes"] is not table:
                table = _clipped(np.asarray(result["bboxes"], np.float64).reshape(-1, 7))
        boxes = (table[:, :4] * _scale(image)).astype(np.float32)
        rows = table[:, 5].astype(np.int64)
        keep = self._rule.keeps(boxes.astype(np.float64), table[:, 6], annotated.is_crowd[rows])
        return AnnotatedImage(
            image=_checked(image),
            boxes=boxes[keep],
            labels=annotated.labels[rows[keep]],
            is_crowd=annotated.is_crowd[rows[keep]],
        )


def _scale(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.array([image.shape[1], image.shape[0]] * 2, dtype=np.float64)


def _clipped(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Boxes cut at the border, their visible fraction updated; those with nothing left go."""
    boxes, left = clip(table[:, :4], (1, 1))
    table = np.concatenate([boxes, table[:, 4:6], table[:, 6:] * left[:, None]], axis=1)
    return np.ascontiguousarray(table[table[:, 6] > 0])


def _checked(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(
            f"the augmentations gave an image of shape {image.shape} and type {image.dtype}; it "
            "must stay (height, width, 3) uint8: look for the transform that changes it"
        )
    return np.ascontiguousarray(image)
