"""Thousands of objects in one image: the memory of the assignment is bounded."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from retina.objective.assignment.max_iou import BLOCK_ELEMENTS
from tests.steady.watching import run_program  # type: ignore[import-not-found]

NUM_ANCHORS = 9 * (40**2 + 20**2 + 10**2 + 5**2 + 3**2)
IMAGES = 2


def taken(num_objects: int, assigner: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(
        run_program("crowded_image.py", num_objects, assigner).splitlines()[-1]
    )
    assert math.isfinite(result["loss"])
    assert math.isfinite(result["score"])
    assert result["num_foreground"] > 0
    return result


@pytest.mark.slow
def test_1000_objects_are_matched_with_max_iou_a_block_at_a_time() -> None:
    many = taken(1000, "max_iou")
    # A block of IoUs (64 MiB) and what they are computed from: the corners, sides (two numbers
    # each) and the areas of the intersections. Eight blocks hold it all at once.
    bound = 8 * 4 * BLOCK_ELEMENTS
    assert many["in_all"] < bound
    # All at once would be more: a pair's IoU, two corners and the sides of what they share.
    assert bound < 4 * IMAGES * 1000 * NUM_ANCHORS * (1 + 2 + 2)


@pytest.mark.slow
def test_1000_objects_are_matched_with_atss_by_their_candidates() -> None:
    many = taken(1000, "atss")
    candidates = IMAGES * 1000 * 5 * 9 * 9  # of five levels, nine cells of nine anchors
    # Boxes, objects and a dozen numbers for each candidate, or one block of distances.
    assert many["in_all"] < max(32 * 4 * candidates, 8 * 4 * BLOCK_ELEMENTS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_8000_objects_take_no_more_than_2000() -> None:
    # More blocks, not larger ones: what grows is the targets.
    many, more = taken(2000, "max_iou"), taken(8000, "max_iou")
    assert abs(more["in_all"] - many["in_all"]) < 4 * BLOCK_ELEMENTS
