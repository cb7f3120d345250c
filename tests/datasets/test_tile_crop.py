"""Training on tiles: parts of images at their own scale, with the boxes that are left in them."""

from __future__ import annotations

import numpy as np

from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.dataset import AnnotatedImage
from retina.datasets.tile_crop import tile_crop
from retina.datasets.visibility import VisibilityRule

RULE = VisibilityRule(min_visibility=0.4, min_area=1.0)
BOXES = np.array([[20, 30, 44, 40], [150, 200, 170, 260], [5, 270, 9, 274]], np.float32)


def annotated(height: int = 300, width: int = 200) -> AnnotatedImage:
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows // 2, columns, rows % 2], axis=2).astype(np.uint8)
    return AnnotatedImage(image, BOXES.copy(), np.arange(3), np.zeros(3, np.bool_))


def test_a_tile_is_a_part_at_its_own_scale_with_its_boxes() -> None:
    image = annotated()
    whole, with_objects = 0, 0
    for seed in range(200):
        part = tile_crop(image, 80, generator=np.random.default_rng(seed), rule=RULE)
        if part is image:
            whole += 1
            continue
        assert part.size == (80, 80)
        top = 2 * int(part.image[0, 0, 0]) + int(part.image[0, 0, 2])
        left = int(part.image[0, 0, 1])
        assert np.array_equal(part.image, image.image[top : top + 80, left : left + 80])
        expected = np.clip(BOXES - [left, top, left, top], 0, 80)
        areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (expected, BOXES)]
        kept = np.flatnonzero(areas[0] >= 0.4 * areas[1])
        assert part.labels.tolist() == kept.tolist()
        np.testing.assert_allclose(part.boxes, expected[kept])
        with_objects += len(kept) > 0
    assert 20 < whole < 65  # a fifth
    assert with_objects > 100  # far more than tiles laid anywhere would have


def test_sides_that_are_shorter_than_a_tile_stay() -> None:
    small = annotated(80, 60)
    assert tile_crop(small, 80, generator=np.random.default_rng(0), rule=RULE) is small
    low = annotated(60, 200)
    sizes = {
        tile_crop(low, 80, generator=np.random.default_rng(seed), rule=RULE).size
        for seed in range(20)
    }
    assert sizes == {(60, 80), (60, 200)}


def test_the_augmentation_cuts_tiles_also_for_mosaics() -> None:
    config = AugmentationConfig(preset="none", tile=64, mosaic_probability=0.5)
    assert not config.keeps_aspect
    pipeline = config.build()
    assert pipeline is not None
    sizes = [
        pipeline(annotated(), seed=seed, load_partner=lambda _: annotated(), num_images=1).size
        for seed in range(30)
    ]
    assert set(sizes) == {(64, 64), (300, 200)}
    again = pipeline(annotated(), seed=3, load_partner=lambda _: annotated(), num_images=1)
    once = pipeline(annotated(), seed=3, load_partner=lambda _: annotated(), num_images=1)
    assert np.array_equal(again.image, once.image)
    assert AugmentationConfig(preset="none").build() is None
