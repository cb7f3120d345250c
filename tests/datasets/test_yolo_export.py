"""Writing YOLO: boxes, names and sizes come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from retina.datasets import find_source
from retina.datasets.exports.yolo import write_yolo
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


def nothing(count: int) -> None: ...


def boxes_of(label_file: Path, width: int, height: int) -> list[list[float]]:
    """Class and corners in pixels of every line."""
    rows = []
    for line in label_file.read_text().splitlines():
        label, x, y, w, h = map(float, line.split())
        corners = [(x - w / 2) * width, (y - h / 2) * height]
        corners += [(x + w / 2) * width, (y + h / 2) * height]
        rows.append([label, *corners])
    return rows


def test_a_set_comes_back(write_coco: CocoWriter, tmp_path: Path) -> None:
    def change(tree: Tree) -> None:
        tree["categories"][0]["name"] = "собака: №1"
        tree["annotations"][2]["bbox"] = [10 / 3, 2.5, 1e-3, 4]
        tree["images"].append({"id": 8, "file_name": "c.png", "height": 40, "width": 60})

    images, path = write_coco(change)
    (images / "c.png").write_bytes((images / "a.png").read_bytes())
    dataset = read_coco(images, path)
    out = tmp_path / "yolo"
    assert write_yolo({"train": dataset, "test": dataset}, out, nothing) == ()
    told = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert told == {
        "train": "images/train",
        "test": "images/test",
        "names": {0: "cat", 1: "собака: №1"},
    }
    for split in ("train", "test"):
        for name in ("a.png", "b.png", "c.png"):
            assert (out / "images" / split / name).samefile(images / name)
        found = boxes_of(out / f"labels/{split}/a.txt", 60, 40)
        expected = [[1, 10, 5, 30, 15], [0, 10 / 3, 2.5, 10 / 3 + 1e-3, 6.5]]
        assert np.allclose(found, expected, rtol=0, atol=1e-6)
        assert (out / f"labels/{split}/c.txt").read_text() == ""


def test_a_thousandth_of_a_pixel_stays_in_ten_thousand(
    write_coco: CocoWriter, tmp_path: Path
) -> None:
    box = [9876.543, 1234.567, 100.001, 0.125]

    def change(tree: Tree) -> None:
        tree["images"] = [{"id": 7, "file_name": "big.png", "height": 2000, "width": 10000}]
        tree["annotations"] = [{"id": 1, "image_id": 7, "category_id": 9, "bbox": box}]

    images, path = write_coco(change)
    cv2.imwrite(str(images / "big.png"), np.zeros((2000, 10000, 3), np.uint8))
    write_yolo({"": read_coco(images, path)}, tmp_path / "out", nothing)
    found = boxes_of(tmp_path / "out/labels/train/big.txt", 10000, 2000)[0]
    expected = [1, box[0], box[1], box[0] + box[2], box[1] + box[3]]
    assert np.allclose(found, expected, rtol=0, atol=1e-4)


def test_what_the_format_cannot_hold_is_told(write_coco: CocoWriter, tmp_path: Path) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"][0].update(bbox=[50, 5, 20, 10])  # reaches out by 10
        tree["annotations"][1].update(iscrowd=1)
        tree["annotations"][2].update(bbox=[30, 20, -10, -15])  # swapped
        tree["annotations"] += [
            {"id": 20, "image_id": 7, "category_id": 9, "bbox": [1, 2, -1, 4]},
            {"id": 21, "image_id": 7, "category_id": 9, "bbox": [80, 2, 5, 4]},
        ]

    dataset = read_coco(*write_coco(change))
    assert write_yolo({"": dataset}, tmp_path / "out", nothing) == (
        "1 crowd region left out, which YOLO cannot tell from objects",
        "1 box without an area inside of the image left out",
        "1 box cut at the edges of the image",
    )
    found = boxes_of(tmp_path / "out/labels/train/a.txt", 60, 40)
    assert np.allclose(found, [[1, 50, 5, 60, 15], [0, 20, 5, 30, 20]], rtol=0, atol=1e-6)
    assert (tmp_path / "out/labels/train/b.txt").read_text() == ""
    read_again = find_source(tmp_path / "out").split("train")[0].build()
    assert read_again.categories.names == dataset.categories.names
    for index in range(2):
        expected = dataset.targets(index)
        objects = ~expected.is_crowd
        assert torch.allclose(read_again.targets(index).boxes, expected.boxes[objects], atol=1e-4)
        assert torch.equal(read_again.targets(index).labels, expected.labels[objects])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_an_unturned_image_turn_with_it(
    write_coco: CocoWriter, tmp_path: Path, orientation: int
) -> None:
    def change(tree: Tree) -> None:
        tree["images"] = [{"id": 7, "file_name": "t.jpg", "height": 40, "width": 60}]
        tree["annotations"] = [{"id": 1, "image_id": 7, "category_id": 9, "bbox": [8, 8, 16, 8]}]

    images, path = write_coco(change)
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[8:16, 8:24] = 255
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(pixels).save(images / "t.jpg", exif=tags, quality=100)
    dataset = read_coco(images, path)
    write_yolo({"": dataset}, tmp_path / "out", nothing)
    # As the readers of this format open it: turned as EXIF asks for.
    seen = cv2.imread(str(tmp_path / "out/images/train/t.jpg"), cv2.IMREAD_GRAYSCALE)
    assert seen is not None
    height, width = seen.shape
    found = boxes_of(tmp_path / "out/labels/train/t.txt", width, height)[0][1:]
    if orientation < 5:  # the annotated size fits both ways: read, and so annotated, as turned
        assert np.allclose(found, [8, 8, 24, 16], atol=1e-6)
    else:
        rows, columns = np.nonzero(seen > 128)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.allclose(found, edges, atol=1e-6)


def test_classes_of_other_splits_follow_those_of_train(
    write_coco: CocoWriter, tmp_path: Path
) -> None:
    def other(tree: Tree) -> None:
        tree["categories"] = [{"id": 1, "name": "cow"}, {"id": 2, "name": "dog"}]
        tree["annotations"] = [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [5, 6, 7, 8]},
        ]

    splits = {
        "train": read_coco(*write_coco()),
        "validation": read_coco(*write_coco(other, "other")),
    }
    write_yolo(splits, tmp_path / "out", nothing)
    told = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert told["names"] == {0: "cat", 1: "dog", 2: "cow"}
    labels = [row[0] for row in boxes_of(tmp_path / "out/labels/val/a.txt", 60, 40)]
    assert labels == [1, 2]
