"""`retina data fix`: what a training would read, as a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.datasets.fixing import fix_annotations
from retina.datasets.formats.coco_file import read_coco_file
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]
RunRetina = Callable[..., subprocess.CompletedProcess[str]]


def spoil(tree: Tree) -> None:
    tree["annotations"][0].update(bbox=[50, 30, 20, 20], area=400)  # reaches out by 10
    tree["annotations"][2].update(bbox=[30, 20, -10, -15], area=77)  # swapped; the area is a mask's
    tree["annotations"] += [
        {"id": 14, "image_id": 7, "category_id": 9, "bbox": [1, 2, -1, 4]},
        {"id": 15, "image_id": 30, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 1},
    ]
    tree["images"].append({"id": 30, "file_name": "./a.png"})


def test_boxes_are_written_as_they_are_learnt(write_coco: CocoWriter) -> None:
    folder, path = write_coco(spoil)
    dataset = read_coco(folder, path)
    table, changes = fix_annotations(read_coco_file(path), dataset.table, {1: "b.png: is broken"})
    assert table.image_ids.tolist() == [7]
    assert table.annotation_ids.tolist() == [11, 13, 15]
    assert table.boxes_xywh.tolist() == [[50, 30, 10, 10], [20, 5, 10, 15], [1, 2, 3, 4]]
    assert table.areas.tolist() == [100, 77, 12]
    assert table.is_crowd.tolist() == [False, False, True]
    assert table.findings == ()
    lines = "\n".join(changes)
    assert "1 of 3 entries list an image that is listed before: merged" in lines
    assert "annotation 11 of 'a.png': box [50, 30, 20, 20] reaching out of the image" in lines
    assert "annotation 13 of 'a.png': box [30, 20, -10, -15] with swapped corners" in lines
    assert "annotation 14 of 'a.png': box [1, 2, -1, 4] of a width or height of -1" in lines
    assert changes[-1] == "image 'b.png' with 1 annotation left out: b.png: is broken"


def test_the_copy_needs_no_fix(
    write_coco: CocoWriter, tmp_path: Path, run_retina: RunRetina
) -> None:
    folder, path = write_coco(spoil)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:100])
    before = path.read_bytes()
    done = run_retina("data", "fix", path, "--output", tmp_path / "fixed")
    assert done.returncode == 0, done.stderr
    assert "2 boxes; its images are in" in done.stdout
    changes = (tmp_path / "fixed/changes.txt").read_text().splitlines()
    assert any(line.startswith("image 'b.png' with 1 annotation left out") for line in changes)
    assert path.read_bytes() == before
    fixed = read_coco(folder, tmp_path / "fixed/annotations.json")
    assert fixed.report.findings == ()
    assert fixed.targets(0).boxes.tolist() == [[50, 30, 60, 40], [20, 5, 30, 20], [1, 2, 4, 6]]
    annotations = ("--annotations", tmp_path / "fixed/annotations.json", "--images", folder)
    done = run_retina("data", "fix", *annotations, "--output", tmp_path / "again")
    assert "nothing to fix" in done.stdout
    folders = (tmp_path / "fixed", tmp_path / "again")
    one, two = (json.loads((folder / "annotations.json").read_text()) for folder in folders)
    assert one == two


@pytest.mark.parametrize("format_", ["xyxy", "centered", "relative"])
def test_boxes_of_another_format_are_turned_into_ours(
    write_coco: CocoWriter, tmp_path: Path, run_retina: RunRetina, format_: str
) -> None:
    boxes = [[30 + at, 20 + at % 5, 12, 10 + at % 7] for at in range(14)]
    written = {
        "xyxy": [[x, y, x + w, y + h] for x, y, w, h in boxes],
        "centered": [[x + w / 2, y + h / 2, w, h] for x, y, w, h in boxes],
        "relative": [[x / 60, y / 40, w / 60, h / 40] for x, y, w, h in boxes],
    }[format_]

    def change(tree: Tree) -> None:
        tree["annotations"] = [
            {"id": at, "image_id": 7, "category_id": 9, "bbox": box}
            for at, box in enumerate(written)
        ]

    folder, path = write_coco(change)
    done = run_retina("data", "fix", path, "--output", tmp_path / "fixed")
    assert done.returncode == 0, done.stderr
    assert "all are written as (x, y, width, height) in pixels" in done.stdout
    truth = read_coco(folder, tmp_path / "fixed/annotations.json").ground_truth()
    assert truth.boxes_xywh == pytest.approx(np.array(boxes), abs=1e-4)
    assert truth.areas == pytest.approx(np.array([w * h for _, _, w, h in boxes]), abs=1e-2)


def test_nothing_may_be_fixed_over_itself(write_coco: CocoWriter, run_retina: RunRetina) -> None:
    path = write_coco()[1]
    done = run_retina("data", "fix", path, "--output", path.parent)
    assert done.returncode == 2
    assert "is what shall be fixed; choose another --output" in done.stderr
