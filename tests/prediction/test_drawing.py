from __future__ import annotations

import numpy as np
import pytest
import torch

from retina.prediction.drawing import draw_detections, draw_targets, font_size
from retina.prediction.palette import color_of
from retina.structures import Categories, Detections, Targets

CATEGORIES = Categories.from_names(["dog", "a cat with a name that is longer than the picture"])


def _grey(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def _detections(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        boxes=torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows]),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def _changed(picture: np.ndarray, image: np.ndarray) -> np.ndarray:
    return (picture != image).any(axis=2)


def test_the_box_has_its_class_colour_on_its_edges_and_leaves_its_inside_alone() -> None:
    image = _grey(480, 640)
    picture = draw_detections(image, _detections(([100.0, 200, 300, 400], 0.9, 0)), CATEGORIES)
    assert picture.shape == image.shape
    assert (image == 128).all()  # the input is not drawn on
    for row, column in ((399, 200), (300, 100), (300, 299), (200, 280)):
        assert tuple(picture[row, column]) == color_of(0)
    inside = picture[210:390, 110:290]
    assert (inside == 128).all()
    changed = _changed(picture, image)
    assert changed[150:199, 100:140].any()  # the name stands above the box
    assert not changed[:150].any()
    assert not changed[402:].any()
    assert not changed[:, 302:].any()


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (3000, 4000), (30, 500), (1, 1)])
def test_every_size_of_picture_can_be_drawn_on(size: tuple[int, int]) -> None:
    height, width = size
    found = _detections(
        ([0.0, 0, width, height], 0.9, 1),
        ([-50.0, -50, width + 50, height + 50], 0.8, 0),
        ([width - 1.0, height - 1, width, height], 0.7, 0),
        ([width / 2, height / 2, width / 2, height / 2], 0.6, 1),  # no area
        ([width + 5.0, 0, width + 9, 9], 0.5, 0),  # outside
    )
    picture = draw_detections(_grey(*size), found, CATEGORIES)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert _changed(picture, _grey(*size)).any()


def test_text_grows_with_the_picture_but_more_slowly() -> None:
    assert font_size((480, 640), 1) == 14
    assert font_size((3000, 4000), 1) == 61
    assert font_size((64, 64), 1) == 9
    assert font_size((480, 640), 100) == 10


def test_no_detections_leave_the_picture_alone() -> None:
    image = _grey(50, 60)
    assert np.array_equal(draw_detections(image, _detections(), CATEGORIES), image)
    assert np.array_equal(draw_targets(image, Targets.empty(), CATEGORIES), image)


def test_a_name_at_the_top_edge_stays_inside_the_picture() -> None:
    image = _grey(480, 640)
    picture = draw_detections(image, _detections(([600.0, 0, 640, 100], 0.9, 0)), CATEGORIES)
    tag = (picture == color_of(0)).all(axis=2)
    changed = _changed(picture, image)
    assert tag[50, 600]  # the left edge
    # The name is wider than the box: it is moved left, and all of it can be seen.
    assert changed[101:130, 560:595].any() or changed[2:20, 560:595].any()


def test_names_of_neighbours_do_not_lie_on_each_other() -> None:
    image = _grey(480, 640)
    one = ([100.0, 200, 110, 210], 0.9, 0)
    other = ([130.0, 205, 140, 215], 0.8, 0)  # its name would lie on the first above the box
    areas = []
    for rows in ((one,), (other,), (one, other)):
        picture = draw_detections(image, _detections(*rows), CATEGORIES)
        reds = picture.astype(int) - 128
        # A tag is its colour at 215/255 over the picture: no box line looks like that.
        expected = np.round((np.array(color_of(0)) - 128) * 215 / 255)
        areas.append(int((np.abs(reds - expected) <= 1).all(axis=2).sum()))
    assert areas[2] == pytest.approx(areas[0] + areas[1], rel=0.1)


def test_names_never_hide_more_than_a_third_of_a_small_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 50
    found = Detections(
        boxes=torch.cat([corners, corners + 2], dim=1),
        scores=torch.rand(60, generator=generator),
        labels=torch.zeros(60, dtype=torch.int64),
    )
    picture = draw_detections(_grey(64, 64), found, CATEGORIES)
    boxes_only = 60 * 2 * 2 / 64**2  # at most
    assert _changed(picture, _grey(64, 64)).mean() < 0.35 + boxes_only + 0.1


def test_a_crowd_is_dashed_and_hatched_and_an_object_is_not() -> None:
    image = _grey(480, 640)
    boxes = torch.tensor([[100.0, 100, 300, 300], [350.0, 100, 550, 300]])
    targets = Targets(boxes, torch.tensor([0, 0]), torch.tensor([True, False]))
    picture = draw_targets(image, targets, CATEGORIES)
    changed = _changed(picture, image)
    assert 0.03 < changed[130:290, 110:290].mean() < 0.3
    assert not changed[130:290, 360:540].any()
    colour = (picture == color_of(0)).all(axis=2)
    assert 0.3 < colour[299, 100:300].mean() < 0.7
    assert colour[299, 350:550].all()


def test_the_better_detection_lies_on_top() -> None:
    image = _grey(480, 640)
    rows = [([100.0, 100, 300, 300], 0.4, 0), ([100.0, 100, 300, 300], 0.9, 1)]
    for order in (rows, rows[::-1]):
        picture = draw_detections(image, _detections(*order), CATEGORIES)
        assert tuple(picture[299, 200]) == color_of(1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5), dtype=np.uint8),
        np.zeros((3, 5, 5), dtype=np.uint8),
        np.zeros((5, 5, 3), dtype=np.float32),
    ],
)
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a picture must be \(H, W, 3\) uint8 RGB, is \("):
        draw_detections(image, _detections(), CATEGORIES)
