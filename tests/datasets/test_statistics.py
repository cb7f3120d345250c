"""Statistics of hand-made sets with known numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.datasets.statistics import SizeShares, Spread, dataset_statistics
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def annotation(number: int, image_id: int, category_id: int, box: list[float], **more: Any) -> Any:
    common = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box}
    return {**common, "area": box[2] * box[3], "iscrowd": 0, **more}


def hand_made(tree: dict[str, Any]) -> None:
    for number in range(3):
        tree["images"][number % 2].update(height=40, width=60)
    tree["images"].append({"id": 5, "file_name": "c.png", "height": 40, "width": 60})
    tree["categories"].append({"id": 30, "name": "none"})
    tree["annotations"] = [
        annotation(1, 7, 9, [0, 0, 10, 20]),
        annotation(2, 7, 9, [5, 0, 10, 20], occluded_fraction=0.3),  # half of each covered
        annotation(3, 7, 2, [30, 0, 10, 10], occluded_fraction=0.0),
        annotation(4, 3, 9, [0, 0, 60, 40], area=1000),  # medium by its box, small by its area
        annotation(5, 3, 9, [0, 0, 2, 1]),  # wholly inside the one before, covers little of it
        annotation(6, 3, 2, [0, 0, 60, 40], iscrowd=1),
        annotation(7, 3, 2, [3, 3, 0, 4]),
    ]


def test_hand_made_numbers(write_coco: CocoWriter) -> None:
    folder, path = write_coco(hand_made)
    shutil.copy(folder / "a.png", folder / "c.png")
    statistics = dataset_statistics(read_coco(folder, path))
    assert (statistics.num_images, statistics.num_empty_images) == (3, 1)
    assert (statistics.num_boxes, statistics.num_crowd) == (5, 1)
    assert statistics.class_counts == (("cat", 1), ("dog", 4), ("none", 0))
    assert statistics.imbalance == 4
    assert statistics.by_box == SizeShares(small=0.8, medium=0.2, large=0)
    assert statistics.by_area == SizeShares(small=1, medium=0, large=0)
    assert statistics.overlapped_share == pytest.approx(3 / 5)
    assert statistics.hidden_share == 0.5
    assert statistics.boxes_per_image == Spread(0, 1, 2, 2.5, 3)
    assert statistics.image_widths == Spread(60, 60, 60, 60, 60)
    assert statistics.aspect_ratios.minimum == 0.5
    assert statistics.aspect_ratios.maximum == 2
    assert statistics.box_sides.maximum == pytest.approx(2400**0.5)
    rows = dict(statistics.rows())
    assert rows["commonest : rarest class"] == "4.0 : 1"
    assert rows["classes without a box"] == "1"
    assert rows["small / medium / large by annotated area"] == "100.0% / 0.0% / 0.0%"
    assert rows["objects annotated as hidden by at least 10%"] == "50.0%"


def test_sizes_split_at_32_and_96(write_coco: CocoWriter) -> None:
    def change(tree: dict[str, Any]) -> None:
        areas = [1023.9, 1024, 9215.9, 9216]
        tree["annotations"] = [
            annotation(i, 7, 9, [0, 0, 5, 5], area=area) for i, area in enumerate(areas)
        ]

    statistics = dataset_statistics(read_coco(*write_coco(change)))
    assert statistics.by_area == SizeShares(small=0.25, medium=0.5, large=0.25)
    assert statistics.overlapped_share == 1
    assert statistics.hidden_share is None


def test_a_set_without_boxes(write_coco: CocoWriter) -> None:
    statistics = dataset_statistics(
        read_coco(*write_coco(lambda tree: tree.update(annotations=[])))
    )
    assert (statistics.num_boxes, statistics.num_empty_images) == (0, 2)
    assert statistics.imbalance == 0
    assert statistics.by_box == SizeShares(0, 0, 0)
    assert statistics.boxes_per_image == Spread(0, 0, 0, 0, 0)
    rows = statistics.rows()
    assert len(rows) == 16
    assert [value for _, value in rows[6:10]] == ["–"] * 4
    assert [value for _, value in rows[-2:]] == ["–"] * 2
