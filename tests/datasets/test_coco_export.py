"""Writing COCO files: what comes back is what went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from retina.datasets import find_source
from retina.datasets.combined import ConcatenatedDataset
from retina.datasets.exports.coco import to_coco, write_coco_folder
from retina.datasets.exports.coco import write_coco as export
from retina.errors import UserError
from tests.reading import read_coco, read_voc  # type: ignore[import-not-found]

Writer = Callable[..., tuple[Path, Path]]


def test_a_voc_set_survives_the_way_to_coco(write_voc: Writer, tmp_path: Path) -> None:
    objects = {
        "img_0010": [("dog", (10, 5, 30, 15), 0), ("cat", (1, 1, 60, 40), 1)],
        "img_0002": [("ape", (2.5, 3, 4.25, 9), 0), ("ape", (5, 5, 5, 5), 0)],
        "img_0005": [],
    }
    voc = read_voc(*write_voc(objects))
    path = tmp_path / "converted.json"
    export(voc, path)
    coco = read_coco(voc.images, path)
    assert coco.categories == voc.categories
    assert [Path(coco.file_path(i)).name for i in range(3)] == [
        "img_0002.jpg",
        "img_0005.jpg",
        "img_0010.jpg",
    ]
    before, after = voc.ground_truth(), coco.ground_truth()
    for name in (
        "image_ids",
        "image_sizes",
        "annotation_ids",
        "annotation_image_ids",
        "category_labels",
        "boxes_xywh",
        "areas",
        "is_crowd",
    ):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert coco.targets(2).boxes.tolist() == voc.targets(2).boxes.tolist()


def test_pycocotools_reads_what_is_written(write_coco: Writer, tmp_path: Path) -> None:
    dataset = read_coco(*write_coco())
    export(dataset, tmp_path / "out.json")
    reference = COCO(str(tmp_path / "out.json"))
    assert sorted(reference.getImgIds()) == [3, 7]
    assert reference.loadCats([9])[0]["name"] == "dog"
    assert reference.loadAnns([11])[0]["bbox"] == [10, 5, 20, 10]
    assert reference.loadAnns([11])[0]["area"] == 200


def test_occlusion_and_odd_boxes_are_kept(write_coco: Writer) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["annotations"][0].update(bbox=[50, 5, -20, 10], occluded_fraction=0.25)

    tree = to_coco(read_coco(*write_coco(change)))
    assert tree["annotations"][0]["bbox"] == [50, 5, -20, 10]
    assert tree["annotations"][0]["occluded_fraction"] == 0.25
    assert "occluded_fraction" not in tree["annotations"][1]


def test_file_names_are_relative_to_the_common_or_the_given_folder(write_coco: Writer) -> None:
    first = read_coco(*write_coco())
    both = ConcatenatedDataset([first, read_coco(*write_coco(name="other"))])
    names = [image["file_name"] for image in to_coco(both)["images"]]
    assert names == [
        "set/images/a.png",
        "set/images/b.png",
        "other/images/a.png",
        "other/images/b.png",
    ]
    above = first.images.parent
    names = [image["file_name"] for image in to_coco(first, images=above)["images"]]
    assert names == ["images/a.png", "images/b.png"]
    with pytest.raises(UserError, match="lies outside of"):
        to_coco(both, images=above)


def nothing(count: int) -> None: ...


def test_a_folder_comes_back(write_coco: Writer, tmp_path: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["images"][1].update(id="frame seven", file_name="sub/ä.png")
        tree["annotations"][1].update(image_id="frame seven", iscrowd=1, area=7)
        tree["annotations"][2].update(bbox=[50, 30, 20.25, -5])
        tree["images"].append({"id": 9, "file_name": "b.png", "height": 40, "width": 60})

    images, path = write_coco(change)
    (images / "sub").mkdir()
    (images / "sub/ä.png").write_bytes((images / "a.png").read_bytes())
    before = read_coco(images, path)
    assert write_coco_folder({"": before}, tmp_path / "out", nothing) == ()
    whole = find_source(tmp_path / "out").whole
    assert whole is not None
    after = whole.build()
    assert after.categories == before.categories
    for name in ("image_sizes", "category_labels", "boxes_xywh", "areas", "is_crowd"):
        assert np.array_equal(
            getattr(after.ground_truth(), name), getattr(before.ground_truth(), name)
        ), name
    assert after.table.original_image_ids == before.table.original_image_ids
    for index in range(3):
        assert after.table.file_name(index) == before.table.file_name(index)
        assert Path(after.file_path(index)).samefile(before.file_path(index))
    with pytest.raises(UserError, match=r"holds annotations\.json, images already"):
        write_coco_folder({"": before}, tmp_path / "out", nothing)


def test_splits_get_the_same_categories(write_coco: Writer, tmp_path: Path) -> None:
    def other(tree: dict[str, Any]) -> None:
        tree["categories"] = [{"id": 9, "name": "cow"}, {"id": 1, "name": "dog"}]
        tree["annotations"] = tree["annotations"][:1]

    splits = {"train": read_coco(*write_coco()), "test": read_coco(*write_coco(other, "other"))}
    write_coco_folder(splits, tmp_path / "out", nothing)
    found = find_source(tmp_path / "out").splits
    train, test = found["train"].build(), found["test"].build()
    assert train.categories == test.categories
    assert train.categories.names == ("cat", "dog", "cow")
    assert train.categories.dataset_ids == (2, 9, 10)
    assert train.class_counts() == (2, 1, 0)
    assert test.class_counts() == (0, 0, 1)
