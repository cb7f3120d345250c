"""LabelMe: shapes and their boxes, names of images, what is left out, one clear error each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retina.datasets import find_source
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.labelme import LabelmeConfig
from retina.errors import UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]


def shape(label: object, kind: str | None, *points: tuple[float, float], **more: object) -> Any:
    """A shape as LabelMe 5 writes it."""
    given = [list(point) for point in points]
    common = {"group_id": None, "description": "", "flags": {}, "mask": None}
    return {"label": label, "points": given, "shape_type": kind, **common, **more}


def write(folder: Path, name: str, *shapes: Any, image: bool = True, **more: object) -> Path:
    """A file of LabelMe 5, with its image of 40 × 60."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.jpg",
        "imageData": "/9j/4AAQSkZJRgABAQAAAQABAAD" * 99, "imageHeight": 40, "imageWidth": 60,
    }  # fmt: skip
    tree.update(more)
    if image:
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((40, 60, 3), 90, np.uint8))
    path = folder / f"{name}.json"
    path.write_text(json.dumps({k: v for k, v in tree.items() if v != "absent"}))
    return path


def read(folder: Path, annotations: Path | None = None) -> FolderDataset:
    return LabelmeConfig(images=folder, annotations=annotations or folder).build()


def test_every_shape_has_its_box(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a",
        shape("dog", "rectangle", (30, 25), (10, 5)),
        shape("狗", "polygon", (1, 2), (9, 4), (5, 20.5)),
        shape("dog", "circle", (30, 20), (33, 24)),
        shape("cat", "mask", (4, 6), (14, 26), mask="iVBORw0KGgo"),
        shape("cat", None, (0, 0), (3, 1), (2, 7)),  # of version 3, which had only polygons
        shape(7, "rectangle", (1, 1), (5, 1), (5, 6), (1, 6)),
    )
    write(tmp_path, "b")
    dataset = read(tmp_path)
    assert dataset.categories.names == ("7", "cat", "dog", "狗")
    assert dataset.targets(0).boxes.tolist() == [
        [10, 5, 30, 25],
        [1, 2, 9, 20.5],
        [25, 15, 35, 25],
        [4, 6, 14, 26],
        [0, 0, 3, 7],
        [1, 1, 5, 6],
    ]
    assert dataset.targets(0).labels.tolist() == [2, 3, 2, 1, 1, 0]
    assert dataset.report.num_empty_images == 1
    assert dataset.report.findings == ()


def test_shapes_without_a_box_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a",
        shape("dog", "rectangle", (30, 25), (10, 5)),
        shape("nose", "point", (1, 2)),
        shape("lane", "linestrip", (1, 2), (3, 4), (5, 9)),
        shape("lane", "line", (1, 2), (3, 4)),
        shape("lane", "line", (1, 2), (3, 4)),
    )
    dataset = read(tmp_path)
    assert dataset.categories.names == ("dog",)
    assert dataset.report.findings == (
        "4 shapes without a box are passed over: 2 line, 1 linestrip, 1 point",
    )


def test_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    parts = [
        shape("bus", "polygon", (1, 1), (9, 1), (9, 9), group_id=3),
        shape("bus", "polygon", (20, 5), (30, 5), (30, 19), group_id=3),
        shape("bus", "polygon", (40, 5), (50, 5), (50, 19), group_id=4),
        shape("bus", "rectangle", (2, 2), (8, 8), group_id=5),
        shape("bus", "rectangle", (12, 2), (18, 8), group_id=5),
    ]
    write(tmp_path, "a", *parts)
    dataset = read(tmp_path)
    assert sorted(dataset.targets(0).boxes.tolist()) == [
        [1, 1, 30, 19],
        [2, 2, 8, 8],
        [12, 2, 18, 8],
        [40, 5, 50, 19],
    ]
    assert dataset.report.findings[0].startswith("1 object of several shapes of one group_id")


@pytest.mark.parametrize(
    "told",
    ["..\\images\\a.jpg", "../../elsewhere/a.jpg", "C:\\Users\\me\\a.jpg", "/home/me/a.jpg", None,
     "a.png", "old name.jpg"],
)  # fmt: skip
def test_the_image_is_found_wherever_it_is_said_to_lie(tmp_path: Path, told: str | None) -> None:
    write(tmp_path, "a", shape("dog", "rectangle", (1, 1), (9, 9)), imagePath=told)
    assert Path(read(tmp_path).file_path(0)) == tmp_path / "a.jpg"


def test_the_image_that_is_named_counts_before_the_files_own_name(tmp_path: Path) -> None:
    write(tmp_path, "a", shape("dog", "rectangle", (1, 1), (9, 9)), imagePath="b.jpg")
    write(tmp_path, "c", imagePath="a.jpg")
    cv2.imwrite(str(tmp_path / "b.jpg"), np.zeros((40, 60, 3), np.uint8))
    dataset = read(tmp_path)
    names = [Path(dataset.file_path(index)).name for index in range(2)]
    assert names == ["b.jpg", "a.jpg"]
    assert len(dataset.targets(0).boxes) == 1
    assert dataset.report.findings[0].startswith("1 image without a JSON file left out")


@pytest.mark.parametrize("value", ["absent", None, 0, "wide", -1])
def test_a_size_may_be_missing(tmp_path: Path, value: object) -> None:
    box = shape("dog", "rectangle", (1, 1), (9, 9))
    write(tmp_path, "a", box, imageHeight=value, imageWidth=value)
    assert read(tmp_path).image_sizes.tolist() == [[40, 60]]


def test_images_without_a_file_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, "a", shape("dog", "rectangle", (1, 1), (9, 9)))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    dataset = read(tmp_path)
    assert len(dataset) == 1
    assert dataset.report.findings == (
        "1 JSON file that is not LabelMe's passed over (the first: settings.json)",
        "1 image without a JSON file left out, since it may not have been labelled yet; one "
        "without objects needs a file with no shapes",
    )


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a", shape("", "rectangle", (1, 1), (9, 9)), shape("dog", "circle", (1, 1)))
    write(tmp_path, "b", {"label": "dog", "shape_type": "polygon", "points": [["x", 1]]}, 5)
    (tmp_path / "c.json").write_text('{"shapes": [')
    write(tmp_path, "d", shapes={})
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: 6 problems\n")
    for part in (
        "a.json: shapes[0]: the box has no class",
        "a.json: shapes[1] (circle 'dog'): 'points' must be a list of [x, y]",
        "b.json: shapes[0] (polygon 'dog'): 'points' must be",
        "b.json: shapes[1] must be an object",
        "c.json: not readable as JSON",
        "d.json: 'shapes' must be a list",
    ):
        assert part in message


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no JSON file"):
        read(tmp_path, tmp_path / "empty")
    with pytest.raises(UserError, match=r"gone: no such folder of LabelMe"):
        read(tmp_path, tmp_path / "gone")
    (tmp_path / "empty" / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json: is not LabelMe's: it has no 'shapes'"):
        read(tmp_path, tmp_path / "empty")
    write(tmp_path, "a", shape("dog", "rectangle", (1, 1), (9, 9)), image=False)
    with pytest.raises(UserError, match=r"1 of 1 images are not in .*: a\.jpg"):
        read(tmp_path)


def test_old_files_whose_image_comes_first_are_recognised(tmp_path: Path) -> None:
    write(tmp_path, "a", shape("dog", "rectangle", (1, 1), (9, 9)))
    tree = json.loads((tmp_path / "a.json").read_text())
    tree["imageData"] = "A" * 100_000
    first = {"flags": {}, "imageData": tree.pop("imageData"), **tree}
    (tmp_path / "a.json").write_text(json.dumps(first))
    assert LabelmeConfig.describes_an_image(tmp_path / "a.json")
    assert find_source(tmp_path).format is LabelmeConfig


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("{}", "{}"), ("annotations/{}", "images/{}"), ("{}/json", "{}/images"), ("{}/img", "{}/img"),
     ("labels/{}", "images/{}"), ("images/{}", "images/{}")],
)  # fmt: skip
def test_splits_are_found(tmp_path: Path, annotations: str, images: str) -> None:
    for split in ("train", "val"):
        path = write(
            tmp_path / images.format(split), split, shape("x", "rectangle", (1, 1), (9, 9))
        )
        folder = tmp_path / annotations.format(split)
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    source = find_source(tmp_path)
    assert source.format is LabelmeConfig
    assert {name: part.images for name, part in source.splits.items()} == {
        "train": tmp_path / images.format("train"),
        "validation": tmp_path / images.format("val"),
    }
    assert all(len(part.read().labels) == 1 for part in source.splits.values())


def test_the_command_line(invoke: Invoke, tmp_path: Path) -> None:
    box = shape("dog", "rectangle", (1, 1), (9, 9))
    path = write(tmp_path / "set", "a", box, imagePath="..\\pictures\\a.jpg")
    write(tmp_path / "set", "b", box, box)
    done = invoke("data", "check", tmp_path / "set")
    assert done.code == 0, done.err
    assert "set is taken for LabelMe" in done.out
    assert "2 images, 3 boxes" in done.out
    assert "every image can be used" in done.out
    done = invoke("data", "check", path)
    assert done.code == 0, done.err
    assert "1 images, 1 boxes" in done.out or "1 image, 1 box" in done.out
    path.write_text('{"shapes": [')
    done = invoke("data", "check", tmp_path / "set")
    assert done.code == 2
    assert "a.json: not readable as JSON" in done.err
