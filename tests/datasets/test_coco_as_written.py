"""COCO files as tools write them: odd values in fields that decide little, merged exports, ids."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.datasets.exports.coco import to_coco
from retina.datasets.formats.coco import read_coco_annotations, read_coco_ground_truth
from retina.errors import UserError
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize(
    ("key", "value", "area", "is_crowd"),
    [
        *(("area", value, 200, False) for value in ("big", -1, None, [], True, float("nan"), {})),
        ("area", "12.5", 12.5, False),
        ("area", 0, 0, False),
        *(
            ("iscrowd", value, 200, False)
            for value in (2, -1, "maybe", [1], None, "0", "false", "")
        ),
        *(("iscrowd", value, 200, True) for value in (1, True, 1.0, "1", "true", "Yes")),
        *(("id", value, 200, False) for value in (None, "a", 12, True, 1.5, [])),
        *(("occluded_fraction", value, 200, False) for value in ("?", 2, -0.5)),
        *((key, "?", 200, False) for key in ("segmentation", "attributes", "date", "score")),
    ],
)
def test_what_decides_little_may_be_anything(
    write_coco: CocoWriter, key: str, value: Any, area: float, is_crowd: bool
) -> None:
    truth = read_coco(*write_coco(lambda t: t["annotations"][0].update({key: value})))
    truth = truth.ground_truth()
    assert truth.areas.tolist() == [area, 2400, 13]
    assert truth.is_crowd.tolist() == [is_crowd, False, False]
    assert len(set(truth.annotation_ids.tolist())) == 3


def test_what_is_passed_over_is_counted(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"][1].update(area="big", iscrowd=7)
        tree["annotations"][2].update(area=-4, id=11)
        tree["images"][1].update(height="forty", license=None, date_captured=[1])

    findings = read_coco(*write_coco(change)).report.findings
    assert findings[:4] == (
        "1 of 2 values of 'height' in 'images' make no sense: taken as not given (the first: "
        "images[1].height (id 3) is 'forty')",
        "the ids of 'annotations' are missing, no numbers or not unique: numbered anew from 1",
        "2 of 3 values of 'area' in 'annotations' make no sense: taken as not given (the first: "
        "annotations[1].area (id 12) is 'big')",
        "1 of 3 values of 'iscrowd' in 'annotations' make no sense: taken as 0 (the first: "
        "annotations[1].iscrowd (id 12) is 7)",
    )


@pytest.mark.parametrize("value", [-1, 0, None, "", "60 px", 60.5, -40, [60], 1e300, True])
def test_a_size_that_makes_no_sense_is_read_from_the_file(
    write_coco: CocoWriter, value: Any
) -> None:
    dataset = read_coco(*write_coco(lambda tree: tree["images"][0].update(width=value)))
    assert dataset.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert any("1 of 2 images without an annotated width" in f for f in dataset.report.findings)


def test_a_box_of_unknown_width_is_dropped_not_turned(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"][0].update(bbox=[10, 5, -1, 10])
        tree["annotations"][2].update(bbox=[10, 5, 20, -1])

    dataset = read_coco(*write_coco(change))
    assert len(dataset.targets(0)) == 0
    assert dataset.report.findings[-1] == (
        "2 boxes of a width or height of -1 (unknown) left out of training and evaluation (first: "
        "annotation 11 of 'a.png')"
    )
    assert dataset.ground_truth().annotation_ids.tolist() == [12]  # nobody could find the others


def test_ids_as_text_and_whole_floats(write_coco: CocoWriter) -> None:
    def as_text(tree: Tree) -> None:
        tree["images"][0].update(id="7")
        tree["annotations"][0].update(image_id="7.0", category_id=9.0)
        tree["annotations"][1].update(image_id=3.0)
        tree["categories"][0].update(id="9")

    folder, path = write_coco(as_text)
    dataset = read_coco(folder, path)
    assert dataset.image_ids.tolist() == [7, 3]
    assert dataset.targets(0).labels.tolist() == [1, 0]
    written = to_coco(dataset)
    assert [image["id"] for image in written["images"]] == ["7", 3]
    assert [category["id"] for category in written["categories"]] == [2, "9"]


def test_ids_that_are_names(write_coco: CocoWriter) -> None:
    def as_names(tree: Tree) -> None:
        names = {7: "left", 3: "right", 9: "d", 2: "c"}
        for record in (*tree["images"], *tree["categories"]):
            record["id"] = names[record["id"]]
        for record in tree["annotations"]:
            record["image_id"] = names[record["image_id"]]
            record["category_id"] = names[record["category_id"]]

    folder, path = write_coco(as_names)
    dataset = read_coco(folder, path)
    assert dataset.image_ids.tolist() == [1, 2]
    assert dataset.categories.names == ("dog", "cat")
    assert dataset.targets(0).labels.tolist() == [0, 1]
    written = to_coco(dataset)
    assert [image["id"] for image in written["images"]] == ["left", "right"]
    assert [one["image_id"] for one in written["annotations"]] == ["left", "right", "left"]
    assert [one["category_id"] for one in written["annotations"]] == ["d", "c", "c"]


def test_an_image_listed_once_per_box_is_one_image(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"] += [
            {"id": 20, "file_name": "./a.png"},
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 21, "file_name": "b.png", "height": 40, "width": 60},
        ]
        tree["annotations"][2].update(image_id=20)
        tree["categories"].append({"id": 9, "name": "dog", "supercategory": "x"})

    folder, path = write_coco(change)
    dataset = read_coco(folder, path)
    assert dataset.image_ids.tolist() == [7, 3]
    assert dataset.categories.names == ("cat", "dog")
    assert dataset.targets(0).boxes.tolist() == [[10, 5, 30, 15], [1.5, 2.5, 4.75, 6.5]]
    assert dataset.report.findings == (
        "3 of 5 entries list an image that is listed before: merged, with all their annotations "
        "(the first: images[2], 'a.png')",
        "1 entry of 'categories' repeats another one: merged",
    )
    assert read_coco_ground_truth(path).annotation_image_ids.tolist() == [7, 3, 7]
    assert dict(read_coco_annotations(path).image_aliases) == {20: 7, 21: 3}


def test_all_problems_are_told_at_once(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"][0].update(file_name="../a.png")
        tree["images"].append({"id": None, "file_name": 3})
        tree["categories"].append({"id": 2, "name": "cow"})
        tree["annotations"][0].update(bbox=[1, 2, 3])
        tree["annotations"][1].update(bbox=[1, 2, 3, "4"], category_id=5)
        tree["annotations"][2].pop("image_id")

    folder, path = write_coco(change)
    with pytest.raises(UserError) as caught:
        read_coco(folder, path)
    assert str(caught.value).splitlines() == [
        f"{path}: 8 problems",
        "  images[2].id: must be an id: a whole number of at most 63 bits, or a text, is None",
        "  images[2].file_name: must be a string, is 3",
        "  images[0].file_name (id 7): '../a.png' does not name a file below the image folder; "
        "only relative paths without '..' are read",
        "  categories[2].id: 2 is the id of 'cat' and of 'cow'; every category needs an id of its "
        "own",
        "  annotations[2].image_id (id 13): this key is missing",
        "  annotations[1].category_id (id 12): there is no category with the id 5 in this file (1 "
        "of 3 annotations belong to an unknown category)",
        "  annotations[0].bbox (id 11): must be a list [x, y, width, height], is [1, 2, 3]",
        "  annotations[1].bbox (id 12): must be four numbers, is [1, 2, 3, '4']",
    ]


def test_many_problems_are_counted(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"] = [{"id": n, "image_id": 7, "category_id": 9} for n in range(5)]
        tree["images"] += [{"id": 100 + n, "file_name": f"../{n}.png"} for n in range(30)]

    folder, path = write_coco(change)
    with pytest.raises(UserError) as caught:
        read_coco(folder, path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 31 problems"
    assert lines[-1] == "  … and 11 more"
    assert len(lines) == 22


def test_a_test_split_has_no_annotations(write_coco: CocoWriter) -> None:
    folder, path = write_coco(lambda tree: tree.pop("annotations"))
    dataset = read_coco(folder, path)
    assert dataset.categories.names == ("cat", "dog")
    assert dataset.report.num_empty_images == 2
    assert "the file has no 'annotations', as that of a test split" in dataset.report.findings[0]


def test_an_lvis_file_is_told(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        for image in tree["images"]:
            image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        tree["images"][1].update(neg_category_ids=[9])

    path = write_coco(change)[1]
    assert "an LVIS file: of an image not every class is annotated" in " ".join(
        read_coco_annotations(path).findings
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_any_encoding_and_gzip(write_coco: CocoWriter, encoding: str) -> None:
    folder, path = write_coco()
    expected = read_coco_ground_truth(path).boxes_xywh.tolist()
    path.write_bytes(gzip.compress(path.read_text().encode(encoding)))
    assert read_coco(folder, path).ground_truth().boxes_xywh.tolist() == expected


def test_the_file_that_was_refused_three_times_in_a_row(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["categories"] += tree["categories"]
        tree["images"][0].update(width=-1)
        tree["images"].append({"id": 0, "file_name": "c.png"})
        tree["annotations"][2].update(image_id="0")

    folder, path = write_coco(change)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    dataset = read_coco(folder, path)
    assert dataset.report.num_boxes == 3
    assert json.loads(json.dumps(to_coco(dataset)))["annotations"][2]["image_id"] == 0
