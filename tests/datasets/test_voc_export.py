"""Writing Pascal VOC: what comes back through its reader is what went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retina.datasets import find_source
from retina.datasets.exports.voc import write_voc
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


def nothing(count: int) -> None: ...


def odd(tree: Tree) -> None:
    tree["categories"][0]["name"] = "猫 & <dog>"
    tree["annotations"][0].update(bbox=[50.125, 5, 20, 10.0625], iscrowd=1)  # reaches out
    tree["annotations"][2].update(bbox=[30, 20, -10, -15])
    tree["images"].append({"id": 8, "file_name": "sub/a.png", "height": 40, "width": 60})


def test_a_single_set_comes_back(write_coco: CocoWriter, tmp_path: Path) -> None:
    images, path = write_coco(odd)
    (images / "sub").mkdir()
    (images / "sub/a.png").write_bytes((images / "b.png").read_bytes())
    before = read_coco(images, path)
    assert write_voc({"": before}, tmp_path / "out", nothing) == ()
    source = find_source(tmp_path / "out")
    assert source.whole is not None
    after = source.whole.build()
    assert after.categories.names == ("cat", "猫 & <dog>")
    names = [Path(after.file_path(index)).name for index in range(len(after))]
    assert sorted(names) == ["a.png", "b.png", "sub_a.png"]
    rows = after.ground_truth()
    of = {name: rows.image_indices == index for index, name in enumerate(names)}
    assert rows.boxes_xywh[of["a.png"]].tolist() == [
        [50.125, 5, 20, 10.0625],
        [30, 20, -10, -15],
    ]
    assert rows.is_crowd[of["a.png"]].tolist() == [True, False]
    assert rows.category_labels[of["a.png"]].tolist() == [1, 0]
    assert not of["sub_a.png"].any()
    assert (after.image_sizes == (40, 60)).all()
    for index, name in enumerate(names):
        source_name = name.replace("sub_", "sub/")
        assert Path(after.file_path(index)).samefile(images / source_name)


def test_splits_with_equal_names_come_back(write_coco: CocoWriter, tmp_path: Path) -> None:
    def other(tree: Tree) -> None:
        tree["categories"].append({"id": 40, "name": "cow"})
        tree["annotations"] = tree["annotations"][:1]

    train = read_coco(*write_coco())
    validation = read_coco(*write_coco(other, "other"))
    told = write_voc({"train": train, "validation": validation}, tmp_path / "out", nothing)
    assert told == ("1 class without a box left out, since VOC has no list of classes: cow",)
    source = find_source(tmp_path / "out")
    assert set(source.splits) == {"train", "validation"}
    again = source.splits["train"].build()
    assert again.class_counts() == train.class_counts()
    again = source.splits["validation"].build(train.categories)
    assert again.class_counts() == (0, 1)
    assert again.report.num_images == 2
    assert again.ground_truth().boxes_xywh.tolist() == [[10, 5, 20, 10]]
    files = {Path(again.file_path(index)) for index in range(2)}
    assert all(
        any(file.samefile(validation.file_path(index)) for index in range(2)) for file in files
    )


def test_thirds_of_a_pixel_stay(write_coco: CocoWriter, tmp_path: Path) -> None:
    box = [10 / 3, 20 / 3, 1 / 7, 2 / 7]

    def change(tree: Tree) -> None:
        tree["annotations"][0]["bbox"] = box

    write_voc({"": read_coco(*write_coco(change))}, tmp_path / "out", nothing)
    source = find_source(tmp_path / "out").whole
    assert source is not None
    truth = source.build().ground_truth()
    assert np.abs(truth.boxes_xywh - box).sum(axis=1).min() < 1e-12
