"""Where tiles lie, which boxes they cut, and what becomes of the pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.geometry.tile_pieces import join_pieces
from retina.geometry.tiles import Window, cut_sides, tile_windows, whole_window
from retina.structures import Detections

Found = tuple[float, float, float, float, float]
"""A box and its score."""


def test_tiles_of_an_image_by_hand() -> None:
    assert tile_windows((100, 250), 100, 0.2) == [
        Window(0, 0, 100, 100),
        Window(75, 0, 175, 100),
        Window(150, 0, 250, 100),
    ]
    assert tile_windows((80, 90), 100, 0.2) == [Window(0, 0, 90, 80)]
    assert len(tile_windows((200, 200), 100, 0.0)) == 4


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    tile=st.integers(1, 120),
    overlap=st.floats(0, 0.9),
)
def test_tiles_cover_the_image_and_overlap_as_asked(
    height: int, width: int, tile: int, overlap: float
) -> None:
    seen = np.zeros((height, width), dtype=np.bool_)
    windows = tile_windows((height, width), tile, overlap)
    for window in windows:
        assert window.size == (min(tile, height), min(tile, width))
        seen[window.y1 : window.y2, window.x1 : window.x2] = True
    assert seen.all()
    for starts in ({one.x1 for one in windows}, {one.y1 for one in windows}):
        assert (np.diff(sorted(starts)) <= max(1, tile * (1 - overlap))).all()


def test_only_inner_borders_cut() -> None:
    boxes = np.array([[0.0, 40, 60, 100], [90, 1, 99, 50], [20, 20, 80, 80], [1, 97, 98.5, 99]])
    window = np.tile([0.0, 0, 100, 100], (4, 1))  # at the left and the upper border of the image
    assert cut_sides(boxes, window, (150, 300)).tolist() == [
        [False, False, False, True],
        [False, False, True, False],
        [False, False, False, False],
        [False, False, True, True],
    ]


# Two tiles of 100 with an overlap of 20 on an image of 180 × 100; third the whole image.
LEFT, RIGHT = Window(0, 0, 100, 100), Window(80, 0, 180, 100)
SIZE = (100, 180)


def detections(found: list[Found], label: int = 0) -> Detections:
    table = torch.tensor(found, dtype=torch.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4], torch.full((len(table),), label))


def joined(
    views: list[list[Found]], windows: list[Window], size: tuple[int, int]
) -> list[list[float]]:
    """Boxes and scores, by the boxes."""
    found = join_pieces([detections(one) for one in views], windows, size, iou_threshold=0.5)
    table = torch.cat([found.boxes, found.scores[:, None]], dim=1)
    return sorted([round(value, 3) for value in row] for row in table.tolist())


def test_a_piece_is_dropped_for_the_tile_that_sees_the_object_whole() -> None:
    piece, whole = (85, 10, 100, 40, 0.7), (85.5, 10, 130, 40, 0.6)
    assert joined([[piece], [whole]], [LEFT, RIGHT], SIZE) == [[85.5, 10, 130, 40, 0.6]]


def test_a_doubtful_whole_does_not_hide_a_sure_piece() -> None:
    piece, whole = (85, 10, 100, 40, 0.9), (85.5, 10, 130, 40, 0.3)
    found = joined([[piece], [whole]], [LEFT, RIGHT], SIZE)
    assert found == [[85, 10, 100, 40, 0.9], [85.5, 10, 130, 40, 0.3]]


def test_a_sure_and_a_doubtful_piece_are_not_joined() -> None:
    views: list[list[Found]] = [[(50, 10, 99, 40, 0.9)], [(80, 12, 140, 41, 0.3)]]
    assert len(joined(views, [LEFT, RIGHT], SIZE)) == 2


def test_pieces_of_an_object_that_no_tile_sees_whole_are_one() -> None:
    views: list[list[Found]] = [[(50, 10, 99, 40, 0.7)], [(80, 12, 140, 41, 0.8)]]
    assert joined(views, [LEFT, RIGHT], SIZE) == [[50, 10, 140, 41, 0.8]]


def test_the_whole_image_replaces_all_pieces() -> None:
    views: list[list[Found]] = [
        [(48, 9, 141, 42, 0.7)],
        [(50, 10, 99, 40, 0.7)],
        [(80, 12, 140, 41, 0.8)],
    ]
    windows = [whole_window(SIZE), LEFT, RIGHT]
    assert joined(views, windows, SIZE) == [[48, 9, 141, 42, 0.7]]


def test_two_objects_at_one_seam_stay_two() -> None:
    upper, lower = (60, 5, 100, 40, 0.9), (80, 50, 130, 90, 0.8)  # pieces of two objects
    assert len(joined([[upper], [lower]], [LEFT, RIGHT], SIZE)) == 2
    # Side by side, one ends where the other begins: each is whole in a tile.
    views: list[list[Found]] = [
        [(30, 10, 99, 40, 0.9)],
        [(80, 10, 99, 40, 0.5), (101, 10, 150, 40, 0.8)],
    ]
    assert joined(views, [LEFT, RIGHT], SIZE) == [[30, 10, 99, 40, 0.9], [101, 10, 150, 40, 0.8]]


def test_two_pieces_of_one_tile_are_two_objects() -> None:
    above, below, both = (50, 10, 100, 40, 0.9), (50, 26, 100, 55, 0.8), (80, 10, 140, 42, 0.7)
    found = joined([[above, below], [both]], [LEFT, RIGHT], SIZE)
    assert found == [[50, 10, 140, 42, 0.9], [50, 26, 100, 55, 0.8]]


def test_pieces_of_other_classes_are_other_objects() -> None:
    found = join_pieces(
        [detections([(50, 10, 99, 40, 0.7)], 0), detections([(80, 12, 140, 41, 0.8)], 1)],
        [LEFT, RIGHT],
        SIZE,
        iou_threshold=0.5,
    )
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.boxes.shape == (2, 4)


def test_an_object_at_a_cross_of_four_tiles_is_one() -> None:
    size = (180, 180)
    windows = tile_windows(size, 100, 0.2)
    thing = np.array([50.0, 40, 130, 125])
    views = [
        [(*np.clip(thing, [w.x1, w.y1] * 2, [w.x2, w.y2] * 2).tolist(), 0.5 + number / 10)]
        for number, w in enumerate(windows)
    ]
    assert len(windows) == 4
    assert joined(views, windows, size) == [[50, 40, 130, 125, 0.8]]


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("with_whole", [True, False])
def test_an_object_larger_than_a_tile_is_one(overlap: float, with_whole: bool) -> None:
    size = (300, 500)
    windows = tile_windows(size, 100, overlap)
    thing = np.array([30.0, 20, 420, 270])
    views: list[list[Found]] = []
    for window in windows:
        x1, y1, x2, y2 = np.clip(thing, [window.x1, window.y1] * 2, [window.x2, window.y2] * 2)
        views.append([(x1, y1, x2, y2, 0.6)] if x2 > x1 and y2 > y1 else [])
    if with_whole:
        views.append([(31.0, 21, 421, 269, 0.6)])
        windows.append(whole_window(size))
    (found,) = joined(views, windows, size)
    assert np.abs(np.array(found[:4]) - thing).max() <= 1
    assert found[4] == 0.6


def test_tiles_that_touch_agree_along_their_seam_but_not_in_a_corner() -> None:
    size = (200, 200)
    windows = tile_windows(size, 100, 0.0)
    beside: list[list[Found]] = [[(50, 10, 100, 40, 0.7)], [(100, 11, 140, 41, 0.8)], [], []]
    assert joined(beside, windows, size) == [[50, 10, 140, 41, 0.8]]
    corner: list[list[Found]] = [[(50, 60, 100, 100, 0.7)], [], [], [(100, 100, 140, 130, 0.8)]]
    assert len(joined(corner, windows, size)) == 2


def test_a_lone_piece_stays_unless_it_lies_in_a_better_whole_object() -> None:
    piece = (60, 30, 100, 50, 0.5)
    assert joined([[piece], []], [LEFT, RIGHT], SIZE) == [[60, 30, 100, 50, 0.5]]
    whole = whole_window(SIZE)
    better, worse = (50, 10, 140, 60, 0.6), (50, 10, 140, 60, 0.4)
    assert len(joined([[better], [piece], []], [whole, LEFT, RIGHT], SIZE)) == 1
    assert len(joined([[worse], [piece], []], [whole, LEFT, RIGHT], SIZE)) == 2


def test_nothing_found_is_nothing() -> None:
    assert joined([[], []], [LEFT, RIGHT], SIZE) == []
