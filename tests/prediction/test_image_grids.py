from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from retina.prediction.drawing import draw_detections, draw_targets
from retina.prediction.image_grids import draw_comparison, image_grid
from retina.structures import Categories, Detections, Targets

CATEGORIES = Categories.from_names(["dog", "cat"])
TARGETS = Targets(
    torch.tensor([[10.0, 60, 50, 100], [60.0, 60, 90, 100]]),
    torch.tensor([0, 1]),
    torch.tensor([False, True]),
)
DETECTIONS = Detections(
    torch.tensor([[12.0, 62, 52, 102], [80.0, 10, 95, 30]]),
    torch.tensor([0.9, 0.2]),
    torch.tensor([0, 1]),
)


def test_comparison_has_truth_on_the_left_and_predictions_on_the_right() -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    picture = draw_comparison(image, TARGETS, DETECTIONS, CATEGORIES, score_threshold=0.5)
    caption = picture.shape[0] - 300
    assert 10 < caption < 40
    truth = draw_targets(image, TARGETS, CATEGORIES)
    found = draw_detections(image, DETECTIONS.at_least(0.5), CATEGORIES)
    assert np.array_equal(picture[caption:, :400], truth)
    assert np.array_equal(picture[caption:, -400:], found)
    assert not np.array_equal(truth, found)


def test_a_small_image_is_enlarged_by_a_whole_factor() -> None:
    image = np.random.default_rng(0).integers(0, 255, (110, 120, 3), dtype=np.uint8)
    picture = draw_comparison(image, Targets.empty(), DETECTIONS.at_least(1.0), CATEGORIES)
    assert picture.shape[0] > 330
    assert np.array_equal(picture[-330::3, :360:3], image)


def test_a_narrow_picture_has_room_for_its_caption() -> None:
    image = np.zeros((6000, 256, 3), dtype=np.uint8)
    picture = draw_comparison(image, TARGETS, DETECTIONS, CATEGORIES, score_threshold=0.5)
    assert 1024 < picture.shape[0] < 1060
    assert picture.shape[1] > 200  # wider than the two strips of 43 pixels


def test_image_grid_places_pictures_row_by_row() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((20, 30, 3), colour, dtype=np.uint8) for colour in colours]
    grid = image_grid(images, columns=2, cell=(40, 60), gap=4)
    assert grid.shape == (4 + 2 * 44, 4 + 2 * 64, 3)
    assert tuple(grid[24, 34]) == colours[0]
    assert tuple(grid[24, 98]) == colours[1]
    assert tuple(grid[68, 34]) == colours[2]
    assert tuple(grid[68, 98]) == (32, 32, 32)


def test_image_grid_keeps_aspect_ratios_and_drops_empty_columns() -> None:
    grid = image_grid([np.full((100, 10, 3), 255, dtype=np.uint8)], columns=5, cell=(50, 50), gap=0)
    assert grid.shape == (50, 50, 3)
    assert (grid[:, 22:27] == 255).all()
    assert (grid[:, :22] == 32).all()
    with pytest.raises(ValueError, match="0 pictures in 3 columns"):
        image_grid([], columns=3)


def test_a_real_picture_is_drawn(shared_data: Path) -> None:
    path = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[0]
    image = np.array(PIL.Image.open(path).convert("RGB"))
    picture = draw_comparison(image, TARGETS, DETECTIONS, CATEGORIES)
    assert picture.shape[1] == 2 * 640 + 4
    untouched = picture[-200:, :640] == image[-200:]
    assert untouched.all()  # no box there
