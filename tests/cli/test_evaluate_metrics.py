"""``retina evaluate`` by other metrics, for several files and for some images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]

Tree = dict[str, Any]

TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of two cats and a dog, and what was found: all but a cat, and a false one."""
    boxes = [(1, 1, [10, 10, 20, 20]), (1, 1, [60, 10, 20, 20]), (2, 2, [10, 10, 30, 30])]
    tree: Tree = {
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "width": 100, "height": 80}
            for number, name in ((1, "one"), (2, "two"))
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": at + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for at, (image, category, box) in enumerate(boxes)
        ],
    }
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.8},
        {"image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 24], "score": 0.7},
    ]
    annotations, results = tmp_path / "truth.json", tmp_path / "found.json"
    annotations.write_text(json.dumps(tree))
    results.write_text(json.dumps(found))
    return annotations, results


def evaluate(invoke: Invoke, files: tuple[Path, Path], output: Path, *options: str | Path) -> Tree:
    annotations, results = files
    arguments = ("--detections", results, "--annotations", annotations, "--output", output)
    done = invoke("evaluate", *arguments, *options)
    assert done.code == 0, done.err
    tree: Tree = json.loads((output / "metrics.json").read_text())
    tree["printed"] = done.out
    return tree


def test_what_coco_gives_keeps_its_keys(
    invoke: Invoke, files: tuple[Path, Path], tmp_path: Path
) -> None:
    tree = evaluate(invoke, files, tmp_path / "out")
    assert list(tree) == [*TWELVE, "max_detections", "per_category", "printed"]
    assert not (tmp_path / "out" / "per_image.json").exists()


def test_pascal_voc(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    tree = evaluate(invoke, files, tmp_path, "--metrics", "voc")
    assert set(TWELVE) < set(tree)
    assert tree["voc"]["AP"] == pytest.approx((0.5 + 1) / 2)
    assert tree["voc"]["AP_11_point"] == pytest.approx((6 / 11 + 1) / 2)
    assert [one["name"] for one in tree["voc"]["per_category"]] == ["cat", "dog"]
    assert "Pascal VOC, per category, at IoU 0.5" in tree["printed"]
    at_other = evaluate(invoke, files, tmp_path, "--metrics", "voc", "--ious", "0.5,0.9")
    assert [one["AP"] for one in at_other["voc"]["per_iou"]] == pytest.approx([0.75, 0.25])


def test_any_ious(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    tree = evaluate(invoke, files, tmp_path, "--ious", "0.5,0.75,0.9")
    at_half, at_three_quarters, at_nine_tenths = tree["ious"]["per_iou"]
    assert (at_half["AP"], at_three_quarters["AP"]) == (tree["AP50"], tree["AP75"])
    assert at_nine_tenths["AP"] < at_half["AP"]
    assert tree["ious"]["AP"] == pytest.approx((2 * tree["AP50"] + at_nine_tenths["AP"]) / 3)
    assert "COCO metrics by IoU" in tree["printed"]
    cocos = evaluate(invoke, files, tmp_path, "--ious", "0.50:0.95")
    assert cocos["ious"]["AP"] == cocos["AP"]


def test_lvis(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    tree = json.loads(files[0].read_text())
    for image in tree["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    for category, frequency in zip(tree["categories"], "rf", strict=True):
        category["frequency"] = frequency
    files[0].write_text(json.dumps(tree))
    done = evaluate(invoke, files, tmp_path, "--metrics", "lvis")
    # Whether image 2 has a cat, nobody knows: the false alarm is none.
    assert done["lvis"]["AP50"] == pytest.approx((51 / 101 + 1) / 2)
    assert (done["lvis"]["APr"], done["lvis"]["APc"]) == (pytest.approx(51 / 101), None)
    assert done["lvis"]["max_detections"] == 300
    assert done["max_detections"] == 100
    assert "LVIS metrics" in done["printed"]


def test_each_image(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(invoke, files, tmp_path, "--per-image")
    tree = json.loads((tmp_path / "per_image.json").read_text())
    assert (tree["format_version"], tree["iou"], tree["score_threshold"]) == (1, 0.5, 0.7)
    one, two = tree["images"]
    assert (one["image_id"], one["file_name"]) == (1, "one.jpg")
    assert (one["annotations"], one["num_objects"]) == (str(files[0]), 2)
    assert (one["tp"], one["fp"], one["fn"]) == (1, 0, 1)
    assert (two["tp"], two["fp"], two["fn"]) == (1, 1, 0)


def test_some_images(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    named = tmp_path / "named.txt"
    named.write_text("two.jpg\n")
    tree = evaluate(invoke, files, tmp_path, "--image-list", named)
    assert f"{named}: 1 of 2 images is scored" in tree["printed"]
    assert [one["num_ground_truth"] for one in tree["per_category"]] == [0, 1]
    assert tree["AP50"] == pytest.approx(1)


def test_several_files(invoke: Invoke, files: tuple[Path, Path], tmp_path: Path) -> None:
    again = ("--annotations", files[0], "--detections", files[1])
    tree = evaluate(invoke, files, tmp_path, *again)
    assert tree["num_images"] == 4
    assert [entry["num_images"] for entry in tree["per_file"]] == [2, 2]
    assert tree["per_file"][0]["AP"] == tree["per_file"][1]["AP"] == pytest.approx(tree["AP"])
    assert "all together" in tree["printed"]


def test_a_folder_of_pascal_voc_with_its_list_of_a_split(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "Annotations"
    folder.mkdir()
    (tmp_path / "JPEGImages").mkdir()
    for name, difficult in (("img_1", 0), ("img_2", 1)):
        (folder / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>60</width>"
            "<height>40</height></size><object><name>cat</name>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>21</xmax><ymax>21</ymax></bndbox></object></annotation>"
        )
    results, split = tmp_path / "found.json", tmp_path / "test.txt"
    results.write_text(
        json.dumps(
            [
                {"image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5},
                {"image_id": 2, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.9},
            ]
        )
    )
    tree = evaluate(invoke, (folder, results), tmp_path / "out", "--metrics", "voc")
    (cat,) = tree["voc"]["per_category"]
    assert (cat["num_ground_truth"], cat["num_difficult"], cat["AP"]) == (1, 1, 1)
    split.write_text("img_2\n")
    only = ("--metrics", "voc", "--image-list", split)
    tree = evaluate(invoke, (folder, results), tmp_path / "out", *only)
    assert tree["voc"]["AP"] is None
    assert tree["AP"] == -1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "pascal"], "--metrics"),
        (["--metrics", "lvis"], "neg_category_ids"),
        (["--metrics", "lvis", "--per-image", "--output", "out"], "leave it away with --metrics"),
        (["--metrics", "voc", "--max-detections", "5"], "Pascal VOC counts every detection"),
        (["--ious", "half"], "--ious: 'half' is no number"),
        (["--ious", "75"], "above 0 and at most 1"),
        (["--per-image"], "say where with --output FOLDER"),
        (["--image-list", "none.txt"], "none.txt: no such image list"),
        (["--image-list", "unknown.txt"], "1 of 2 lines name no image of the annotations: 'three'"),
        (["--image-list", "empty.txt"], "names no image"),
        (["--detections", "found.json"], "2 results files for 1 annotation file"),
        (["--annotations", "truth.json"], "truth.json is named twice; name each file once"),
        (["--images", "a", "--images", "b"], "2 folders for 1 annotation file"),
        (["--split", "test"], "leave --data, --config and --split away"),
        (["--annotations", "none.json"], "none.json"),
    ],
)
def test_one_clear_error_each(
    options: list[str],
    message: str,
    invoke: Invoke,
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files[0].parent)
    Path("unknown.txt").write_text("one\nthree\n")
    Path("empty.txt").write_text("\n")
    done = invoke("evaluate", "--detections", "found.json", "--annotations", "truth.json", *options)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not Path("out").exists()
