"""Planted label errors are what they are called, are listed, and come from the seed alone."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from retina.errors import UserError
from retina.instruments.label_errors.corrupted_boxes import SPURIOUS_IOU, free_box, shifted_box
from retina.instruments.label_errors.corruption import SHIFTED_IOU, CorruptionRates, corrupt


def iou(a: list[float], b: list[float]) -> float:
    across = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return across * down / (a[2] * a[3] + b[2] * b[3] - across * down)


def content(num_images: int = 20, per_image: int = 4, num_classes: int = 3) -> dict[str, Any]:
    """Boxes in the four corners of 200 × 200 images."""
    annotations = [
        {
            "id": 10 + image * per_image + row,
            "image_id": image,
            "category_id": 5 + row % num_classes,
            "bbox": [10.0 + 120 * (row % 2), 15.0 + 110 * (row // 2), 40.0, 50.0],
            "area": 1500.0,
            "iscrowd": 0,
        }
        for image in range(num_images)
        for row in range(per_image)
    ]
    return {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": 200, "width": 200}
            for image in range(num_images)
        ],
        "annotations": annotations,
        "categories": [{"id": 5 + k, "name": f"class {k}"} for k in range(num_classes)],
    }


def test_each_kind_is_made_as_often_as_asked_and_as_it_is_called():
    before = content()
    was = {one["id"]: one for one in before["annotations"]}
    rates = CorruptionRates(missing=0.1, wrong_class=0.2, shifted=0.05, spurious=0.15)
    result = corrupt(before, rates, seed=3)
    now = {one["id"]: one for one in result.content["annotations"]}
    counts = Counter(one.kind for one in result.corruptions)
    assert counts == {"missing": 8, "wrong_class": 16, "shifted": 4, "spurious": 12}  # of 80
    assert len(now) == 80 - 8 + 12
    assert result.num_objects == 80
    for one in result.corruptions:
        if one.kind == "missing":
            assert one.annotation_id not in now
            assert one.after is None
        elif one.kind == "wrong_class":
            label = now[one.annotation_id]
            assert label["bbox"] == was[one.annotation_id]["bbox"]
            assert label["category_id"] != was[one.annotation_id]["category_id"]
            assert one.before == {
                "bbox": was[one.annotation_id]["bbox"],
                "category_id": was[one.annotation_id]["category_id"],
            }
        elif one.kind == "shifted":
            label = now[one.annotation_id]
            overlap = iou(label["bbox"], was[one.annotation_id]["bbox"])
            assert SHIFTED_IOU[0] <= overlap <= SHIFTED_IOU[1]
            assert label["area"] == label["bbox"][2] * label["bbox"][3]
        else:
            assert one.annotation_id > max(was)
            assert one.before is None
            others = [a["bbox"] for a in was.values() if a["image_id"] == one.image_id]
            assert max(iou(one.after["bbox"], other) for other in others) < SPURIOUS_IOU


def test_no_object_suffers_two_errors_and_the_others_are_untouched():
    before = content()
    result = corrupt(before, CorruptionRates(missing=0.3, wrong_class=0.3, shifted=0.3), seed=0)
    touched = [one.annotation_id for one in result.corruptions]
    assert len(set(touched)) == len(touched) == 72
    now = {one["id"]: one for one in result.content["annotations"]}
    for one in before["annotations"]:
        if one["id"] not in touched:
            assert now[one["id"]] == one


def test_the_seed_decides_and_the_input_stays():
    before = content()
    untouched = json.dumps(before)
    rates = CorruptionRates.evenly(0.4)
    first, again = (corrupt(before, rates, seed=1) for _ in range(2))
    other = corrupt(before, rates, seed=2)
    assert first == again
    assert first.corruptions != other.corruptions
    assert json.dumps(before) == untouched


def test_evenly_splits_a_total_over_the_four_kinds():
    rates = CorruptionRates.evenly(0.2)
    assert rates == CorruptionRates(missing=0.05, wrong_class=0.05, shifted=0.05, spurious=0.05)


def test_crowds_and_flat_boxes_are_left_alone():
    before = content(num_images=1, per_image=4)
    before["annotations"][0]["iscrowd"] = 1
    before["annotations"][1]["bbox"] = [10.0, 10.0, 0.0, 5.0]
    result = corrupt(before, CorruptionRates(missing=1.0), seed=0)
    assert [one["id"] for one in result.content["annotations"]] == [10, 11]


def test_a_shifted_box_stays_in_its_image():
    random = np.random.default_rng(0)
    for _ in range(50):
        box = shifted_box([0, 0, 30, 40], (100, 60), random, overlap=(0.3, 0.6))
        assert box is not None
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[0] + box[2] <= 60.01
        assert box[1] + box[3] <= 100.01


def test_a_spurious_box_keeps_away_from_a_planted_shifted_one():
    """With both, each image fills up: without the rule, one in eleven of these boxes breaks it."""
    before = content(num_images=10, per_image=4)
    planted = corrupt(before, CorruptionRates(shifted=0.6, spurious=0.6), seed=0)
    assert sum(one.kind == "spurious" for one in planted.corruptions) == 24
    shifted = [one for one in planted.corruptions if one.kind == "shifted"]
    for one in planted.corruptions:
        if one.kind == "spurious":
            others = [s.after["bbox"] for s in shifted if s.image_id == one.image_id]
            assert max((iou(one.after["bbox"], box) for box in others), default=0.0) < SPURIOUS_IOU


def test_a_spurious_box_keeps_out_of_crowd_regions():
    before = content(num_images=20, per_image=1)  # an object of 40 x 50 at (10, 15)
    for image in range(20):
        crowd = {"id": 500 + image, "image_id": image, "category_id": 5, "iscrowd": 1}
        crowd |= {"bbox": [60.0, 0.0, 140.0, 200.0], "area": 28000.0}
        before["annotations"].append(crowd)
    planted = corrupt(before, CorruptionRates(spurious=1.0), seed=0)
    assert len(planted.corruptions) == 20
    for one in planted.corruptions:
        x, _, width, _ = one.after["bbox"]
        assert x + width - 60.0 < SPURIOUS_IOU * width


def test_a_box_larger_than_the_image_has_no_free_place():
    assert free_box([0, 0, 50, 20], [], (100, 40), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"missing": 1.5}, "the rate of missing must be within 0 … 1, is 1.5; it is a share of"),
        ({"spurious": float("nan")}, "the rate of spurious must be within 0 … 1, is nan"),
        ({"missing": 0.5, "shifted": 0.6}, "together change 110% of the objects"),
    ],
)
def test_impossible_rates_are_refused(rates: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        CorruptionRates(**rates)


@pytest.mark.parametrize("rate", [5.0, -0.1])
def test_a_total_is_refused_by_the_number_that_was_given(rate: float):
    with pytest.raises(ValueError, match=f"the rate of all errors must be within 0 … 1, is {rate}"):
        CorruptionRates.evenly(rate)


def test_a_wrong_class_needs_a_second_one():
    with pytest.raises(UserError, match="of two classes; give the rates of the other kinds"):
        corrupt(content(num_classes=1), CorruptionRates(wrong_class=0.1), seed=0)


def test_a_full_image_has_no_room_for_spurious_boxes():
    before = content(num_images=1, per_image=1)
    before["annotations"][0]["bbox"] = [0.0, 0.0, 200.0, 200.0]
    with pytest.raises(UserError, match="no room for more spurious boxes"):
        corrupt(before, CorruptionRates(spurious=1.0), seed=0)
