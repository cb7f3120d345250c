"""COCO files: what is read, what is repaired, and one clear error for what cannot be."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retina.datasets.formats.coco import read_coco_ground_truth
from retina.errors import UserError
from retina.structures import SampleRequest
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


def annotation(number: int, image_id: int, category_id: int, box: list[float], **more: Any) -> Tree:
    common = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box}
    return {**common, "area": abs(box[2] * box[3]), "iscrowd": 0, **more}


def request(index: int) -> SampleRequest:
    return SampleRequest(index=index, seed=0, max_size=None, augment=False)


def test_a_plain_set(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    dataset = read_coco(folder, path)
    assert len(dataset) == 2
    assert dataset.categories.names == ("cat", "dog")
    assert dataset.categories.dataset_ids == (2, 9)
    assert dataset.image_ids.tolist() == [7, 3]
    assert dataset.image_sizes.tolist() == [[40, 60], [40, 60]]
    targets = dataset.targets(0)
    assert targets.boxes.dtype == torch.float32
    assert targets.boxes.tolist() == [[10, 5, 30, 15], [1.5, 2.5, 4.75, 6.5]]
    assert targets.labels.tolist() == [1, 0]
    assert dataset.targets(1).labels.tolist() == [0]
    assert dataset.file_path(1) == str(folder / "b.png")
    report = dataset.report
    assert (report.num_images, report.num_boxes, report.num_crowd) == (2, 3, 0)
    assert (report.num_empty_images, report.findings) == (0, ())
    sample = dataset[request(0)]
    assert sample.image_id == 7
    assert np.array_equal(
        sample.image.permute(1, 2, 0).numpy(), np.asarray(Image.open(folder / "a.png"))
    )


def test_ground_truth_is_what_the_file_says(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"] += [
            annotation(14, 3, 9, [50.123456789012345, -3, 30, 10], area=17.5),
            annotation(15, 3, 9, [5, 5, 0, 0], area=0),
            annotation(16, 3, 2, [0, 0, 20, 20], iscrowd=1),
        ]

    truth = read_coco(*write_coco(change)).ground_truth()
    assert truth.annotation_ids.tolist() == [11, 12, 13, 14, 15, 16]
    assert truth.annotation_image_ids.tolist() == [7, 3, 7, 3, 3, 3]
    assert truth.category_labels.tolist() == [1, 0, 0, 1, 1, 0]
    assert truth.boxes_xywh.dtype == np.float64
    assert truth.boxes_xywh[3].tolist() == [50.123456789012345, -3, 30, 10]
    assert truth.boxes_xywh[4].tolist() == [5, 5, 0, 0]
    assert truth.areas.tolist() == [200, 2400, 13, 17.5, 0, 400]
    assert truth.is_crowd.tolist() == [False] * 5 + [True]


def test_boxes_are_repaired_or_dropped_and_counted_once(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["annotations"] = [
            annotation(1, 7, 9, [50, 30, 20, 20]),  # reaches out by 10
            annotation(2, 7, 9, [-4, -5, 10, 10]),  # reaches out by 5
            annotation(3, 7, 9, [30, 20, -10, -15]),  # corners swapped
            annotation(4, 7, 9, [10, 10, 0, 5]),  # no width
            annotation(5, 7, 9, [10, 10, 5, 0]),  # no height
            annotation(6, 7, 9, [70, 10, 5, 5]),  # outside
            annotation(7, 7, 9, [20, 20, 5, 5]),
            annotation(8, 7, 9, [20, 20, 5, 5]),  # the same again
            annotation(9, 7, 2, [20, 20, 5, 5]),  # the same, another class: nothing to say
            annotation(10, 7, 9, [50, 30, 10.000001, 10.000001]),  # rounding: nothing to say
            annotation(11, 7, 9, [float("nan"), 1, 2, 3], area=6),
            annotation(12, 7, 9, [1, 1, float("inf"), 3], area=6),
        ]

    dataset = read_coco(*write_coco(change))
    assert dataset.targets(0).boxes.tolist() == [
        [50, 30, 60, 40],
        [0, 0, 6, 5],
        [20, 5, 30, 20],
        [20, 20, 25, 25],
        [20, 20, 25, 25],
        [20, 20, 25, 25],
        [50, 30, 60, 40],
    ]
    assert dataset.report.findings == (
        "2 boxes with a coordinate that is not finite left out of training and evaluation (first: "
        "annotation 11 of 'a.png')",
        "2 boxes without a width or a height: dropped (first: annotation 4 of 'a.png')",
        "1 box outside of the image: dropped (first: annotation 6 of 'a.png')",
        "1 box with swapped corners: turned round (first: annotation 3 of 'a.png')",
        "2 boxes reaching out of the image (by up to 10 pixels): clipped (first: annotation 1 of "
        "'a.png')",
        "1 box repeating another one exactly (same class): kept (first: annotation 8 of 'a.png')",
    )
    assert dataset.report.num_boxes == 7
    assert dataset.report.num_empty_images == 1
    assert dataset.ground_truth().annotation_ids.tolist() == list(range(1, 11))
    dataset[request(0)]


def test_crowds_and_images_without_objects_are_kept(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        rle = {"counts": [0, 600, 1800], "size": [40, 60]}
        tree["annotations"] = [
            annotation(1, 3, 9, [0, 0, 30, 20], iscrowd=1, segmentation=rle),
            annotation(2, 3, 2, [5, 5, 30, 20], iscrowd=0, segmentation=[[5, 5, 35, 5, 35, 25]]),
        ]

    dataset = read_coco(*write_coco(change))
    assert dataset.targets(1).is_crowd.tolist() == [True, False]
    assert dataset.targets(0).boxes.shape == (0, 4)
    assert dataset[request(0)].targets.boxes.shape == (0, 4)
    report = dataset.report
    assert (report.num_boxes, report.num_crowd, report.num_empty_images) == (1, 1, 1)
    assert set(dataset.ground_truth().image_ids.tolist()) == {7, 3}


def test_a_set_without_any_annotation(write_coco: CocoWriter) -> None:
    dataset = read_coco(*write_coco(lambda tree: tree.update(annotations=[])))
    assert dataset.report.num_empty_images == 2
    assert dataset.ground_truth().boxes_xywh.shape == (0, 4)
    assert len(dataset[request(1)].targets) == 0


def test_missing_areas_and_crowd_flags_are_filled_in(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        del tree["annotations"][0]["area"], tree["annotations"][0]["iscrowd"]
        tree["annotations"][2]["area"] = None

    dataset = read_coco(*write_coco(change))
    assert dataset.ground_truth().areas.tolist() == [200, 2400, 13]
    assert dataset.report.findings == (
        "2 annotations without an area: width × height of the box is taken",
    )


def test_missing_image_sizes_are_read_from_the_files(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        del tree["images"][1]["height"]

    folder, path = write_coco(change)
    dataset = read_coco(folder, path)
    assert dataset.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert "1 of 2 images without an annotated width and height" in dataset.report.findings[0]
    assert read_coco_ground_truth(path).image_sizes.tolist() == [[40, 60], [0, 0]]


def test_ground_truth_needs_no_images(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    expected = read_coco(folder, path).ground_truth()
    for file in folder.iterdir():
        file.unlink()
    truth = read_coco_ground_truth(path)
    assert truth.categories == expected.categories
    assert np.array_equal(truth.boxes_xywh, expected.boxes_xywh)
    assert np.array_equal(truth.image_ids, expected.image_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["images"].clear(), "the data set is empty: 'images' lists none"),
        (lambda t: t["categories"].clear(), "'categories' lists none"),
        (lambda t: t.pop("images"), "the key 'images' is missing"),
        (lambda t: t.update(annotation=t.pop("annotations")), "the key 'annotations' is missing"),
        (lambda t: t.update(images={}), r"'images' must be a list, is \{\}"),
        (lambda t: t["images"].append(4), r"images\[2\] must be an object, is 4"),
        (lambda t: t["images"][1].pop("file_name"), r"images\[1\].file_name \(id 3\): .* missing"),
        (lambda t: t["images"][1].update(id=" "), r"images\[1\].id: must be an id: a whole"),
        (lambda t: t["images"][1].update(id=3.5), r"images\[1\].id: must be an id.*, is 3.5"),
        (
            lambda t: t["images"][1].update(id=True),
            r"images\[1\].id: must be an id: a whole number",
        ),
        (lambda t: t["images"][1].update(id=2**70), r"images\[1\].id: must be an id.*is 11805916"),
        (
            lambda t: t["images"].append({**t["images"][0], "file_name": "c.png"}),
            r"images\[2\]: has the id of images\[0\] too, but this is 'c.png' and that 'a.png'",
        ),
        (
            lambda t: t["images"].append({**t["images"][0], "id": 1, "width": 61}),
            r"images\[2\]: 'a.png' is 40×61 here \(height × width\), but 40×60 in images\[0\]",
        ),
        (
            lambda t: t["categories"].append({"id": 9, "name": "cow"}),
            r"categories\[2\].id: 9 is the id of 'dog' and of 'cow'",
        ),
        (lambda t: t["categories"][1].update(name=3), r"categories\[1\].name .* a string, is 3"),
        (
            lambda t: t["annotations"][1].update(image_id=99),
            r"annotations\[1\].image_id \(id 12\): there is no image with the id 99 .*\(1 of 3",
        ),
        (
            lambda t: t["annotations"][2].update(category_id=5),
            r"annotations\[2\].category_id \(id 13\): there is no category with the id 5",
        ),
        (lambda t: t["annotations"][0].pop("bbox"), r"annotations\[0\].bbox .* missing"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, 3]), r"\[0\].bbox .* is \[1, 2, 3\]"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, "3", 4]), r"\[0\].bbox .*four numbers"),
        (lambda t: t["annotations"][0].update(bbox="1,2"), r"annotations\[0\].bbox .* is '1,2'"),
        (lambda t: t["images"][0].update(file_name="../a.png"), "file below the image folder"),
        (lambda t: t["images"][0].update(file_name="/etc/passwd"), "file below the image folder"),
        (lambda t: t["images"][0].update(file_name="C:\\a.png"), "file below the image folder"),
        (lambda t: t["images"][0].update(file_name="x\\..\\..\\a"), "file below the image folder"),
        (lambda t: t["images"][0].update(file_name=""), "file below the image folder"),
        (lambda t: t["images"][0].update(file_name="\ud800.png"), "no valid text"),
        (
            lambda t: [image.update(file_name="x/" + image["file_name"]) for image in t["images"]],
            "2 of 2 images are not in .*: x/a.png, x/b.png; correct the path of the images",
        ),
        (lambda t: t["images"][1].update(height=41), r"b\.png: the image is 40×60 .* says 41×60"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(
    write_coco: CocoWriter, change: Callable[[Tree], Any], message: str
) -> None:
    folder, path = write_coco(change)
    with pytest.raises(UserError, match=message) as caught:
        read_coco(folder, path)
    assert "\n" not in str(caught.value)
    assert str(folder.parent) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the annotation file is empty"),
        (b"[1, 2]", "is a list, such as a results file"),
        (b"3", "but a single value"),
        (b"\xff\xfe\x00", "no text in UTF-16"),
        (b"\xff\x80", "no text in UTF-8 .byte 0.; save it in UTF-8"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not readable as JSON"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_coco(tmp_path, path)


def test_json_cut_in_half_says_where_it_ends(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(
        UserError, match=r"not readable as JSON: .* at line 1, column \d+"
    ) as caught:
        read_coco(folder, path)
    assert f"of {len(text) // 2}); the file may be incomplete" in str(caught.value)


def test_missing_files_and_folders(write_coco: CocoWriter, tmp_path: Path) -> None:
    folder, path = write_coco()
    with pytest.raises(UserError, match=r"gone\.json: no such annotation file"):
        read_coco(folder, tmp_path / "gone.json")
    with pytest.raises(UserError, match="is a folder, but COCO annotations are one JSON file"):
        read_coco(folder, tmp_path)
    with pytest.raises(UserError, match="gone: no such image folder"):
        read_coco(tmp_path / "gone", path)


def test_byte_order_mark_and_folders_below(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"][0]["file_name"] = "x/ä b.png"

    folder, path = write_coco(change)
    (folder / "x").mkdir()
    (folder / "a.png").rename(folder / "x" / "ä b.png")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    dataset = read_coco(folder, path)
    assert dataset.file_path(0) == str(folder / "x" / "ä b.png")
    assert dataset.load(0).size == (40, 60)


def test_a_truncated_jpeg_is_found_before_training(write_coco: CocoWriter) -> None:
    folder, path = write_coco(lambda tree: tree["images"][0].update(file_name="a.jpg"))
    Image.open(folder / "a.png").save(folder / "a.jpg")
    data = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match=r"a\.jpg: .* cannot be decoded: .*breaks off.*data fix"):
        read_coco(folder, path)


def test_exif_orientation_is_reported_whether_applied_or_not(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"][0].update(file_name="turned.jpg", height=60, width=40)
        tree["images"][1].update(file_name="stored.jpg")

    folder, path = write_coco(change)
    tags = Image.Exif()
    tags[0x0112] = 6
    for name in ("turned.jpg", "stored.jpg"):
        Image.open(folder / "a.png").save(folder / name, exif=tags)
    dataset = read_coco(folder, path)
    assert dataset.report.findings == (
        "1 of 2 images checked are turned as their EXIF orientation asks, which agrees with the "
        "annotated size",
        "1 of 2 images checked have an EXIF orientation that is not applied, since the annotated "
        "size is that of the unturned image",
    )
    assert [dataset.load(index).size for index in (0, 1)] == [(60, 40), (40, 60)]


def test_parts_are_nested_and_the_same_for_the_same_seed(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"] = [
            {"id": 100 + i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(40)
        ]
        tree["annotations"] = [annotation(i, 100 + i, 9, [1, 1, 5, 5 + i]) for i in range(40)]

    folder, path = write_coco(change)
    for number in range(40):
        shutil.copy(folder / "a.png", folder / f"{number}.png")
    ten = read_coco(folder, path, max_images=10)
    twenty = read_coco(folder, path, fraction=0.5)
    other = read_coco(folder, path, max_images=10, subset_seed=1)
    assert len(ten) == 10
    assert len(twenty) == 20
    assert set(ten.image_ids.tolist()) < set(twenty.image_ids.tolist())
    assert ten.image_ids.tolist() == sorted(ten.image_ids.tolist())
    assert ten.image_ids.tolist() == read_coco(folder, path, max_images=10).image_ids.tolist()
    assert ten.image_ids.tolist() != other.image_ids.tolist()
    assert ten.ground_truth().annotation_ids.tolist() == (ten.image_ids - 100).tolist()
    rest = read_coco(folder, path, leave_out_fraction=0.5)
    assert {*twenty.image_ids.tolist(), *rest.image_ids.tolist()} == set(range(100, 140))
    assert len(rest) == 20
    few = read_coco(folder, path, leave_out_fraction=0.5, max_images=5)
    assert len(few) == 5
    assert set(few.image_ids.tolist()) < set(rest.image_ids.tolist())
    with pytest.raises(UserError, match=r"leave_out_fraction 0\.99 of 40 images leaves none"):
        read_coco(folder, path, leave_out_fraction=0.99)
    for index in range(10):
        height = 5 + int(ten.image_ids[index]) - 100
        assert ten.targets(index).boxes.tolist() == [[1, 1, 6, min(40, 1 + height)]]
    assert ten.categories.names == ("cat", "dog")
    assert "10 of 40 images are used, chosen by the subset seed 0" in ten.report.findings


def test_pickled_copies_give_the_same_samples(write_coco: CocoWriter) -> None:
    dataset = read_coco(*write_coco())
    copy = pickle.loads(pickle.dumps(dataset))
    for index in range(2):
        assert torch.equal(copy[request(index)].image, dataset[request(index)].image)
        assert torch.equal(copy.targets(index).boxes, dataset.targets(index).boxes)


@pytest.mark.slow
def test_a_hundred_thousand_annotations_are_read_within_seconds(write_coco: CocoWriter) -> None:
    def change(tree: Tree) -> None:
        tree["images"] = [
            {"id": i, "file_name": "a.png", "height": 40, "width": 60} for i in range(20_000)
        ]
        tree["annotations"] = [
            annotation(i, i % 20_000, 9, [i % 50, 1, 5, 5], segmentation=[[1.5] * 20])
            for i in range(100_000)
        ]

    folder, path = write_coco(change)
    size = path.stat().st_size
    start = time.process_time()
    dataset = read_coco(folder, path)
    seconds = time.process_time() - start
    assert dataset.report.num_boxes == 100_000
    assert json.loads(path.read_text())["annotations"][99_999]["id"] == 99_999
    assert seconds < 20, f"{seconds:.1f} s for {size / 1e6:.0f} MB"
