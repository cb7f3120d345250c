"""Mosaics: the boxes of all four images land where their objects do."""

from __future__ import annotations

import numpy as np

from retina.datasets.dataset import AnnotatedImage
from retina.datasets.mosaic import mosaic
from retina.datasets.visibility import VisibilityRule

EVERYTHING = VisibilityRule(min_visibility=0.0, min_area=0.0)


def rectangle(seed: int) -> AnnotatedImage:
    """A rectangle of its own grey value, the label times ten plus 100, on black."""
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(90, 260, 2))
    x1, y1 = generator.integers(0, width - 40), generator.integers(0, height - 40)
    x2, y2 = generator.integers(x1 + 30, width + 1), generator.integers(y1 + 30, height + 1)
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 100 + 10 * seed
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return AnnotatedImage(image, box, np.array([seed]), np.array([seed % 2 == 1]))


def make(seed: int, rule: VisibilityRule = EVERYTHING) -> tuple[AnnotatedImage, list[int]]:
    images = [rectangle(index) for index in range(12)]
    asked: list[int] = []

    def load_partner(index: int) -> AnnotatedImage:
        asked.append(index)
        return images[index]

    made = mosaic(
        images[0],
        generator=np.random.default_rng(seed),
        load_partner=load_partner,
        num_images=len(images),
        rule=rule,
    )
    return made, asked


def test_every_rectangle_and_its_box_move_together() -> None:
    compared = 0
    for seed in range(40):
        made, asked = make(seed)
        assert made.size == rectangle(0).size
        np.testing.assert_array_equal(made.is_crowd, made.labels % 2 == 1)
        grey = made.image[:, :, 0].astype(np.int64)
        for box, label in zip(made.boxes, made.labels, strict=True):
            if [0, *asked].count(int(label)) > 1:
                continue  # drawn twice: its pixels cannot be told apart
            value = 100 + 10 * int(label)
            x1, y1, x2, y2 = (round(float(side)) for side in box)
            inside = grey[y1:y2, x1:x2]
            if min(inside.shape) < 10:
                continue
            assert (inside == value).mean() > 0.75  # all but the blended border
            # Elsewhere, the blended border of another rectangle may have this very value.
            top, left = max(0, y1 - 8), max(0, x1 - 8)
            ys, xs = np.nonzero(grey[top : y2 + 8, left : x2 + 8] == value)
            seen = [left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1]
            np.testing.assert_allclose(seen, box, atol=2.5)  # the border is blended at a zoom of 2
            compared += 1
    assert compared >= 60


def test_every_object_that_is_seen_has_its_box() -> None:
    for seed in range(30):
        made, _ = make(seed)
        covered = np.zeros(made.size, bool)
        for x1, y1, x2, y2 in np.round(made.boxes).astype(int):
            covered[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
        assert not made.image.any(axis=2)[~covered].any()


def test_the_generator_alone_decides() -> None:
    (first, asked), (second, asked_again) = make(7), make(7)
    assert asked == asked_again
    assert len(asked) == 3
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.image, make(8)[0].image)


def test_objects_cut_below_the_rule_go_and_crowds_stay() -> None:
    strict = VisibilityRule(min_visibility=0.95, min_area=0.0)
    kept = {"crowd": 0, "object": 0}
    for seed in range(30):
        (all_boxes, _), (some_boxes, _) = make(seed), make(seed, strict)
        assert some_boxes.is_crowd.sum() == all_boxes.is_crowd.sum()
        kept["crowd"] += int(some_boxes.is_crowd.sum())
        kept["object"] += int((~all_boxes.is_crowd).sum() - (~some_boxes.is_crowd).sum())
    assert kept["crowd"] > 10
    assert kept["object"] > 10


def test_an_image_of_one_pixel_does_not_crash() -> None:
    tiny = AnnotatedImage(
        np.full((1, 1, 3), 9, np.uint8),
        np.array([[0, 0, 1, 1]], np.float32),
        np.array([0]),
        np.array([False]),
    )
    made = mosaic(
        tiny,
        generator=np.random.default_rng(0),
        load_partner=lambda index: tiny,
        num_images=1,
        rule=EVERYTHING,
    )
    assert made.size == (1, 1)
    np.testing.assert_array_equal(made.boxes, [[0, 0, 1, 1]])
