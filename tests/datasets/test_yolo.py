"""YOLO's format: where images and labels lie, what a row means, one clear error each.

The layouts are those of Ultralytics' own sets and of exports of Roboflow, CVAT, Label Studio,
LabelImg and Darknet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retina.datasets import FolderDataset, SourceConfig, YoloConfig, find_source, format_of
from retina.datasets.folder import FolderConfig
from retina.datasets.formats.yolo_labels import read_row
from retina.errors import UnreadableImageError, UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]

Write = Callable[..., Path]

ROW = "0 0.5 0.5 0.2 0.4\n"
ROW_IN_PIXELS = [24, 12, 12, 16]
"""Of an image of 40 × 60 (height × width)."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files below a folder: images of 40 × 60 where no text is given."""

    def write(files: dict[str, str | None], folder: str = "set") -> Path:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
            else:
                path.write_text(text, encoding="utf-8")
        return tmp_path / folder

    return write


def read(path: Path, split: str | None = None) -> FolderDataset:
    return SourceConfig(source=path, split=split).build()


def boxes_of(dataset: FolderDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """The boxes as written, by the names of the files."""
    table = dataset.table
    found: dict[str, list[tuple[str, list[float]]]] = {
        table.file_name(index): [] for index in range(len(dataset))
    }
    for image, label, box in zip(
        table.image_indices, table.labels, table.boxes_xywh.tolist(), strict=True
    ):
        found[table.file_name(int(image))].append((table.categories.names[label], box))
    return found


ROBOFLOW = {
    "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
    "nc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  workspace: w\n  license: CC BY 4.0\n",
    "README.roboflow.txt": "exported\n",
    "train/images/a_jpg.rf.0ab.jpg": None,
    "train/labels/a_jpg.rf.0ab.txt": ROW + "1 0.25 0.25 0.5 0.5",
    "train/images/b_jpg.rf.1cd.jpg": None,
    "train/labels/b_jpg.rf.1cd.txt": "",
    "train/images/c.jpg": None,
    "valid/images/d.jpg": None,
    "valid/labels/d.txt": ROW,
}


def test_roboflows_export_with_its_wrong_paths(write: Write) -> None:
    folder = write(ROBOFLOW)
    source = find_source(folder)
    assert source.describe() == f"{folder} is taken for YOLO: train, validation"
    train = read(folder, "train")
    assert boxes_of(train) == {
        "a_jpg.rf.0ab.jpg": [("cat", [24, 12, 12, 16]), ("dog", [0, 0, 30, 20])],
        "b_jpg.rf.1cd.jpg": [],
        "c.jpg": [],
    }
    assert train.categories.dataset_ids == (0, 1)
    report = train.report
    assert (report.num_boxes, report.num_empty_images) == (2, 2)
    assert report.findings[1:3] == (
        f"train: '../train/images' is not there, {folder}/train/images is taken",
        f"1 of 3 images without a label file: taken as without objects (the first: "
        f"{folder}/train/images/c.jpg)",
    )
    valid = read(folder / "data.yaml", "val")
    assert boxes_of(valid) == {"d.jpg": [("cat", ROW_IN_PIXELS)]}
    assert valid.categories.names == ("cat", "dog")
    assert len(read(folder / "valid")) == 1


IN_SPLITS = {
    "images/train/a.jpg": None,
    "labels/train/a.txt": ROW,
    "images/val/deep/b.PNG": None,
    "labels/val/deep/b.txt": "1 0.5 0.5 1 1\n",
}
LISTS = {
    "train.txt": "./images/train/a.jpg\n\n./images/train/a.jpg\n",
    "val.txt": "images/val/deep/b.PNG\r\n",
}
NAMED = "names:\n  0: cat\n  1: dog\n"


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {"coco8.yaml": f"path: ../sets/coco8\ntrain: images/train\nval: images/val\n{NAMED}"},
            id="Ultralytics, a path of elsewhere",
        ),
        pytest.param(
            {"data.yaml": f"path: .\ntrain: images/train\nval: images/val\n{NAMED}"}, id="."
        ),
        pytest.param(
            {"data.yaml": f"train: [images/train]\nval:\n- ./images/val/\n{NAMED}"}, id="lists"
        ),
        pytest.param(
            {"data.yaml": f"train: /content/set/images/train\nval: C:\\set\\images\\val\n{NAMED}"},
            id="absolute, of other machines",
        ),
        pytest.param(
            {"data.yaml": f"path: ./ # root\ntrain: train.txt\nval: val.txt\n{NAMED}", **LISTS},
            id="CVAT's lists",
        ),
        pytest.param(
            {
                "data.yaml": f"train: train.txt\nval: val.txt\n{NAMED}",
                "train.txt": "/data/set/images/train/a.jpg\n",
                "val.txt": "data/images/val/deep/b.PNG\n",
            },
            id="lists of other machines",
        ),
        pytest.param({"classes.txt": "cat\ndog\n", **LISTS}, id="no yaml"),
        pytest.param({"dataset.yaml": "nc: 2\nnames: [cat, dog]\n"}, id="names alone"),
        pytest.param({"labels/classes.txt": "cat\r\ndog\r\n\r\n"}, id="classes beside labels"),
        pytest.param({"obj.names": "cat\ndog\n"}, id="names of Darknet"),
    ],
)  # fmt: skip
def test_splits_are_found(write: Write, files: dict[str, str | None]) -> None:
    folder = write({**IN_SPLITS, **files})
    assert set(find_source(folder).splits) == {"train", "validation"}
    train, validation = read(folder, "train"), read(folder, "val")
    (row,) = boxes_of(train).values()
    assert row == [("cat", ROW_IN_PIXELS)]
    ((name, other),) = boxes_of(validation).items()
    assert other == [("dog", [0, 0, 60, 40])]
    assert name.endswith("b.PNG")
    assert train.categories == validation.categories


def test_what_is_said_not_to_be_there_is_what_the_file_means(write: Write) -> None:
    text = f"path: /content/x\ntrain: images/train\nval: images/train\n{NAMED}"
    folder = write({"x.yaml": text, "images/train/a.png": None, "labels/train/a.txt": ROW})
    assert (
        f"train: 'images/train' is not there below '/content/x', {folder}/images/train is taken"
        in read(folder, "train").report.findings
    )


def test_absolute_paths_are_taken(write: Write, tmp_path: Path) -> None:
    folder = write(IN_SPLITS)
    listed = write({"train.txt": f"{folder}/images/train/a.jpg\n"}, "lists")
    yaml = write(
        {"x.yml": f"path: {folder}\ntrain: {listed}/train.txt\nval: images/val\n{NAMED}"}, "y"
    )
    assert boxes_of(read(yaml, "train")) == {"a.jpg": [("cat", ROW_IN_PIXELS)]}
    assert boxes_of(read(yaml, "val")) == {"deep/b.PNG": [("dog", [0, 0, 60, 40])]}


def test_a_split_of_several_folders(write: Write) -> None:
    folder = write(
        {
            "data.yaml": f"train:\n  - one/images\n  - two/images\nval: two/images\n{NAMED}",
            **{"one/images/a.jpg": None, "one/labels/a.txt": ROW},
            **{"two/images/a.jpg": None, "two/labels/a.txt": "1 0.5 0.5 1 1"},
        }
    )
    assert boxes_of(read(folder, "train")) == {
        "one/images/a.jpg": [("cat", ROW_IN_PIXELS)],
        "two/images/a.jpg": [("dog", [0, 0, 60, 40])],
    }
    assert list(boxes_of(read(folder, "val"))) == ["a.jpg"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"images/a.jpg": None, "labels/a.txt": ROW, "classes.txt": "cat\n"}, id="two"),
        pytest.param(
            {
                "images/a.jpg": None,
                "labels/a.txt": ROW,
                "classes.txt": "cat\n",
                "notes.json": '{"categories": [{"id": 0, "name": "cat"}]}',
            },
            id="Label Studio",
        ),
        pytest.param({"a.jpg": None, "a.txt": ROW, "classes.txt": "cat\n"}, id="LabelImg"),
        pytest.param(
            {"images/a.jpg": None, "images/a.txt": ROW, "data.yaml": "names: [cat]"}, id="mixed"
        ),
        pytest.param(
            {"a.jpg": None, "a.txt": ROW, "_darknet.labels": "cat\n"}, id="Roboflow's Darknet"
        ),
    ],
)  # fmt: skip
def test_a_single_data_set_is_found(write: Write, files: dict[str, str | None]) -> None:
    folder = write(files)
    assert find_source(folder).describe() == f"{folder} is taken for YOLO"
    dataset = read(folder)
    assert boxes_of(dataset) == {"a.jpg": [("cat", ROW_IN_PIXELS)]}
    assert not any("belong" in finding for finding in dataset.report.findings)


def test_darknets_description(write: Write) -> None:
    folder = write(
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\n"
            "names = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "valid.txt": "data/obj_valid_data/b.jpg\n",
            **{"obj_train_data/a.jpg": None, "obj_train_data/a.txt": ROW},
            **{"obj_valid_data/b.jpg": None, "obj_valid_data/b.txt": "1 0.5 0.5 1 1"},
        }
    )
    for source in (folder, folder / "obj.data"):
        assert boxes_of(read(source, "train")) == {"a.jpg": [("cat", ROW_IN_PIXELS)]}
        assert boxes_of(read(source, "validation")) == {"b.jpg": [("dog", [0, 0, 60, 40])]}
    assert boxes_of(read(folder / "train.txt")) == {"a.jpg": [("cat", ROW_IN_PIXELS)]}


def test_without_names_classes_are_numbered(write: Write) -> None:
    folder = write({"images/a.jpg": None, "labels/a.txt": ROW + "2 0.5 0.5 1 1"})
    dataset = read(folder)
    assert dataset.categories.names == ("class 0", "class 1", "class 2")
    assert any(f.startswith("nothing names the classes") for f in dataset.report.findings)
    folder = write({"data.yaml": "nc: 4\ntrain: images\n"})
    assert len(read(folder, "train").categories) == 4


def test_names_in_any_script_with_gaps_and_repeats(write: Write) -> None:
    folder = write(
        {
            "data.yaml": "train: images\nnc: 2\nnames: {3: Küçük, 0: 猫, 7: no, 8: 猫}\n",
            "images/ä b.jpg": None,
            "labels/ä b.txt": "3 0.5 0.5 1 1\n0 0.5 0.5 1 1\n7 .5 .5 1 1\n8 .5 .5 1 1\n",
        }
    )
    dataset = read(folder, "train")
    assert dataset.categories.names == ("猫", "Küçük", "no", "猫")
    assert dataset.categories.dataset_ids == (0, 3, 7, 8)
    assert dataset.class_counts() == (1, 1, 1, 1)
    findings = dataset.report.findings
    assert "nc is 2, but there are 4 names: the names count" in findings
    assert "several categories share a name: 猫" in findings


@pytest.mark.parametrize(
    ("row", "keypoints", "corners", "kind"),
    [
        ("0 0.5 0.5 0.2 0.4", False, (0.4, 0.3, 0.6, 0.7), "box"),
        ("  0.0\t0.5 0.5 0.2 4e-1 ", False, (0.4, 0.3, 0.6, 0.7), "box"),
        ("0 0.5 0.5 0.2 0.4 0.91", False, (0.4, 0.3, 0.6, 0.7), "confidence"),
        ("0 0.1 0.1 0.5 0.2 0.3 0.9", False, (0.1, 0.1, 0.5, 0.9), "outline"),
        ("0 .1 .2 .5 .1 .6 .4 .2 .5", False, (0.1, 0.1, 0.6, 0.5), "outline"),  # a turned box
        ("0 .1 0 .5 0 .6 .4 1 1 0 1", False, (0, 0, 1, 1), "outline"),
        ("0 0.5 0.5 0.2 0.4 0.5 0.4 2", False, (0.4, 0.3, 0.6, 0.7), "keypoints"),
        ("0 .5 .5 .2 .4 .5 .4 2 .6 .6 0", False, (0.4, 0.3, 0.6, 0.7), "keypoints"),
        ("0 .5 .5 .2 .4 .5 .4 .6 .6", True, (0.4, 0.3, 0.6, 0.7), "keypoints"),
        ("0 0.02 0.5 0.06 1.01", False, (-0.01, -0.005, 0.05, 1.005), "box"),
    ],
)
def test_what_a_row_means(row: str, keypoints: bool, corners: tuple[float, ...], kind: str) -> None:
    found = read_row(row, has_keypoints=keypoints)
    assert found.corners == pytest.approx(corners)
    assert (found.class_id, found.kind) == (0, kind)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 120 80 30 20", "has numbers above 1, as in pixels"),
        ("0 1.5 1.2 1.1 1.1", "has numbers above 1, as in pixels"),
        ("0 10 10 50 10 50 40 10 40", "has numbers above 1, as in pixels"),
        ("0 0.5 0.5 0.2", "has 3 numbers after the class; a box has 4"),
        ("0", "has 0 numbers after the class"),
        ("0 0.5 0.5 0.2 x", "is not 'class x y width height' in numbers"),
        ("0,0.5,0.5,0.2,0.2", "has 0 numbers after the class"),
        ("dog 0.5 0.5 0.2 0.2", "'dog' is no class id"),
        ("-1 0.5 0.5 0.2 0.2", "the class id -1 is no whole number from 0 on"),
        ("0.5 0.5 0.5 0.2 0.2", "the class id 0.5 is no whole number"),
        ("nan 0.5 0.5 0.2 0.2", "the class id nan is no whole number"),
        ("0 .5 .5 .2 .2 .1 .1 .1", "neither a box (4) nor an outline"),
        ("2 0.5 0.5 0.2 0.2", "the class id 2 is out of range: data.yaml names 2 classes (0, 1)"),
    ],
)  # fmt: skip
def test_rows_that_are_none(write: Write, row: str, message: str) -> None:
    folder = write({**ROBOFLOW, "train/labels/c.txt": f"{ROW}\n{row}\n"})
    with pytest.raises(UserError) as raised:
        read(folder, "train")
    assert f"{folder}/train/labels/c.txt, line 3: " in str(raised.value)
    assert message in str(raised.value)


def test_all_problems_are_told_at_once(write: Write) -> None:
    folder = write({**ROBOFLOW, "train/labels/c.txt": "9 1 1 1 1\nx", "train/labels/b.txt": "y"})
    with pytest.raises(UserError, match=r"data\.yaml, train: 2 problems\n  .*line 1.*\n  .*line 2"):
        read(folder, "train")


def test_findings_about_rows_and_labels_that_no_image_uses(write: Write) -> None:
    folder = write(
        {
            **{"images/a.jpg": None, "images/B.JPG": None, "images/c.jpg": None},
            "labels/a.txt": "0 .1 .1 .5 .1 .5 .5\n0 .5 .5 .2 .2 .9\n0 .5 .5 1.2 .2\n",
            "labels/b.txt": ROW,
            "labels/c.jpg.txt": ROW,
            "labels/gone.txt": ROW,
            "labels/readme.txt": "x",
            "data.yaml": "train: images\nnames: [cat]\n",
        }
    )
    dataset = read(folder, "train")
    assert [len(boxes) for boxes in boxes_of(dataset).values()] == [1, 3, 1]
    shown = "\n".join(dataset.report.findings)
    for words in (
        "1 label file found under another spelling (the first: ",
        f"1 label file belongs to no image: passed over (the first: {folder}/labels/gone.txt)",
        "1 object given by an outline (a polygon or a turned box): the box around it is taken",
        "1 object with a sixth number (a confidence): taken as any other",
        "1 box reaching out of the image (by up to 6 pixels): clipped",
    ):
        assert words in shown


def test_keypoints_are_told_by_the_yaml(write: Write) -> None:
    folder = write(
        {
            "data.yaml": "train: images\nkpt_shape: [2, 2]\nnames: [cat]\n",
            "images/a.jpg": None,
            "labels/a.txt": "0 .5 .5 .2 .4 .1 .1 .9 .9\n",
        }
    )
    dataset = read(folder, "train")
    assert boxes_of(dataset) == {"a.jpg": [("cat", ROW_IN_PIXELS)]}
    assert "1 object with keypoints: only the box is taken" in dataset.report.findings


def test_no_label_at_all_is_refused_but_for_a_test_split(write: Write) -> None:
    files = {"data.yaml": f"train: a/images\nval: b/images\ntest: a/images\n{NAMED}"}
    folder = write({**files, "a/images/x.jpg": None, "b/images/y.jpg": None, "b/labels/z.txt": ""})
    with pytest.raises(UserError, match=r"none of 1 images has a label file: .*a/labels/x\.txt"):
        read(folder, "train")
    assert read(folder, "test").report.num_empty_images == 1
    assert read(folder, "val").report.num_empty_images == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat]\ntrain: nowhere/images\n", "train: there is no 'nowhere/images' beside"),
        ("names: [cat]\npath: /x\ntrain: [a]\n", "there is no 'a' beside the file or in '/x'"),
        ("names: 3\ntrain: images\n", "names: must be a list or a mapping from id to name, is 3"),
        ("names: {a: b}\ntrain: images\n", "names: 'a: b' is not a class id and its name"),
        ("names: [[cat]]\ntrain: images\n", "names: '0: ['cat']' is not a class id and its name"),
        ("names: no.txt\ntrain: images\n", "names: 'no.txt' must be a list, or a file"),
        ("nc: many\ntrain: images\n", "nc: must be the number of classes, is 'many'"),
        ("names: [cat]\ntrain: {a: b}\n", "train: must be a path or a list of paths"),
        ("names: [cat]\ntrain: empty\n", "the data set is empty: train (empty) has no image"),
    ],
)  # fmt: skip
def test_descriptions_that_make_no_sense(
    write: Write, invoke: Invoke, text: str, message: str
) -> None:
    folder = write({"data.yaml": text, "x/a.jpg": None, "empty/a.txt": ROW, "images/a.txt": ROW})
    done = invoke("data", "check", folder / "data.yaml")
    assert (done.code, message in done.err) == (2, True), done.err


def test_images_that_a_list_names_but_are_not_there(write: Write) -> None:
    folder = write({**IN_SPLITS, "train.txt": "images/train/a.jpg\n/x/images/train/gone.jpg\n"})
    with pytest.raises(UserError, match=r"1 of 2 images are not in .*gone\.jpg"):
        read(folder / "train.txt")


def test_a_yaml_is_told_from_an_experiment(write: Write) -> None:
    folder = write(
        {
            "a.yaml": "nc: 1\n",
            "b.yaml": "names: [x]\nmodel: {}\n",
            "c.yaml": "preset: paper\nnc: 2\n",
            "d.yaml": "dataset: {}\n",
            "e.yaml": "- names\n",
            "f.yaml": "model: [",
            "labels/a.txt": "",
            "xml/a.xml": "<annotation/>",
            "xml/a.txt": "",
            "list.txt": "\nimages/a.JPG\n",
            "names.txt": "a\nb\n",
        }
    )
    yolo = {path.name for path in folder.iterdir() if YoloConfig.recognises(path)}
    assert yolo == {"a.yaml", "labels", "list.txt"}
    assert format_of(folder / "xml") is not YoloConfig


def test_a_broken_image_is_listed_though_its_size_is_unknown(write: Write, invoke: Invoke) -> None:
    folder = write({**ROBOFLOW, "train/images/a_jpg.rf.0ab.jpg": "no image"})
    done = invoke("data", "check", folder)
    assert done.code == 1, done.err
    assert "1 image cannot be used:" in done.out
    assert "1 image of unknown size cannot be read (the first: a_jpg.rf.0ab.jpg): 2" in done.out
    part = find_source(folder).splits["train"]
    with pytest.raises(UnreadableImageError, match="is no image"):
        part.build()
    assert part.build(max_unreadable=1).report.num_empty_images == 3
    write({"valid/images/d.jpg": "no image"})
    done = invoke("data", "check", folder, "--split", "val")  # nothing is left to look at
    assert (done.code, "is no image" in done.err) == (2, True)


def test_a_damaged_yaml_is_told(write: Write, invoke: Invoke) -> None:
    folder = write(
        {**IN_SPLITS, "data.yaml": "train: images/train\nnames: [cat\nval: images/val\n"}
    )
    for source in (folder, folder / "data.yaml"):
        done = invoke("data", "check", source)
        assert (done.code, "data.yaml, line " in done.err) == (2, True), done.err
    (folder / "data.yaml").write_bytes("names: [Kätzchen]\ntrain: images/train\n".encode("latin-1"))
    done = invoke("data", "check", folder)
    assert (done.code, "save it in UTF-8" in done.err) == (2, True), done.err


def test_a_config_names_the_parts(write: Write) -> None:
    folder = write(ROBOFLOW)
    images = folder / "train" / "images"
    parts: list[FolderConfig] = [
        YoloConfig(images=images, annotations=folder / "data.yaml", split="train"),
        YoloConfig(images=images, annotations=folder / "data.yaml"),
        YoloConfig(images=images, annotations=folder / "train" / "labels"),
    ]
    first, *others = [boxes_of(part.build()) for part in parts]
    assert others == [first, first]
    assert parts[0].display_name == f"{folder}/data.yaml, train"
    wrong = YoloConfig(images=folder / "valid", annotations=folder / "data.yaml", split="train")
    with pytest.raises(UserError, match="does not lie in the image folder"):
        wrong.build()
    absent = YoloConfig(images=images, annotations=folder / "data.yaml", split="test")
    with pytest.raises(UserError, match=r"test: there is no '../test/images'"):
        absent.build()


def test_a_folder_is_named_from_within(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({**ROBOFLOW, **IN_SPLITS})
    for inside, source in (("train", "."), ("train/images", ".."), (".", "train")):
        monkeypatch.chdir(folder / inside)
        dataset = read(Path(source))
        assert dataset.categories.names == ("cat", "dog")
        assert dataset.report.num_boxes == 2


def test_the_commands(write: Write, invoke: Invoke, tmp_path: Path) -> None:
    folder = write(ROBOFLOW)
    labels = ("--annotations", folder / "train/labels", "--images", folder / "train/images")
    for where in ([folder], [folder / "data.yaml"], labels):
        done = invoke("data", "check", *where)
        assert done.code == 0, done.err
        assert "3 images, 2 boxes, 0 crowd regions, 2 images without objects" in done.out
        assert "every image can be used" in done.out
    done = invoke("data", "stats", folder)
    assert (done.code, "cat" in done.out) == (0, True), done.err
    done = invoke("data", "convert", folder, "--output", tmp_path / "out.json")
    assert done.code == 0, done.err
    tree = json.loads((tmp_path / "out.json").read_text())
    assert tree["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert [one["bbox"] for one in tree["annotations"]] == [[24, 12, 12, 16], [0, 0, 30, 20]]
