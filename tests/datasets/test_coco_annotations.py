"""Annotations are taken into arrays as they are read, and are the same as read one by one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.datasets.formats import coco_file
from retina.datasets.formats.coco_annotations import IrregularError, RegularAnnotations
from retina.datasets.formats.coco_file import read_coco_file

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


def of(tree: Tree, **changes: Any) -> None:
    tree["annotations"][1].update(changes)


REGULAR: dict[str, Callable[[Tree], object]] = {
    "as it is": lambda tree: None,
    "without what may lack": lambda tree: [
        one.pop(key) for one in tree["annotations"][:2] for key in ("area", "iscrowd")
    ],
    "with more": lambda tree: of(tree, occluded_fraction=0.5, segmentation=[[1, 2, 3]], score=1),
    "with objects inside": lambda tree: of(tree, attributes={"a": {"id": 1}}, iscrowd=1),
    "no annotation": lambda tree: tree["annotations"].clear(),
    "boxes that are no numbers": lambda tree: of(tree, bbox=[float("nan"), 0, float("inf"), -1]),
}
IRREGULAR: dict[str, Callable[[Tree], object]] = {
    "a string as id": lambda tree: of(tree, image_id="3"),
    "a truth value": lambda tree: of(tree, iscrowd=True),
    "a crowd flag of 2": lambda tree: of(tree, iscrowd=2),
    "an area below 0": lambda tree: of(tree, area=-1),
    "an area of NaN": lambda tree: of(tree, area=float("nan")),
    "an infinite area": lambda tree: of(tree, area=float("inf")),
    "a fraction above 1": lambda tree: of(tree, occluded_fraction=2),
    "an id twice": lambda tree: of(tree, id=11),
    "a huge id": lambda tree: of(tree, id=2**70),
    "an empty box": lambda tree: of(tree, bbox=[]),
    "no annotations at all": lambda tree: tree.pop("annotations"),
    "an image like an annotation": lambda tree: tree["images"][0].update(
        image_id=1, category_id=1, bbox=[0, 0, 1, 1]
    ),
}


@pytest.mark.parametrize("name", [*REGULAR, *IRREGULAR])
def test_the_table_is_the_same_either_way(name: str, write_coco: CocoWriter) -> None:
    _, path = write_coco((REGULAR | IRREGULAR)[name])
    if name in REGULAR:
        table = coco_file._read(path, regular=RegularAnnotations())
    else:
        with pytest.raises(IrregularError):
            coco_file._read(path, regular=RegularAnnotations())
        table = read_coco_file(path)
    one_by_one = coco_file._read(path, regular=None)
    for field in fields(table):
        left, right = getattr(table, field.name), getattr(one_by_one, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=field.name)
            assert left.dtype == right.dtype, field.name
        else:
            assert left == right, field.name


@pytest.mark.slow
def test_many_annotations_take_little_more_than_their_text(tmp_path: Path) -> None:
    count = 40_000  # several blocks
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": i + 0.5,
             "bbox": [i * 0.25, 1.5, 2, 3]}
            for i in range(count)
        ],
    }  # fmt: skip
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(tree))
    tracemalloc.start()
    try:
        table = coco_file._read(path, regular=RegularAnnotations())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        one_by_one = coco_file._read(path, regular=None)
        _, peak_one_by_one = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.boxes_xywh[:, 0].tolist() == [i * 0.25 for i in range(count)]
    assert table.areas.tolist() == one_by_one.areas.tolist()
    assert peak < 3.5 * path.stat().st_size
    assert peak_one_by_one > 5 * path.stat().st_size
