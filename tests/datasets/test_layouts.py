"""How folders of each format are laid out, and that none is taken for another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retina.datasets import (
    CocoConfig,
    CsvConfig,
    FolderConfig,
    VocConfig,
    YoloConfig,
    find_source,
    format_of,
)
from retina.datasets.formats.coco import read_coco_annotations
from retina.datasets.formats.cvat import CvatConfig
from retina.datasets.formats.json_kinds import json_kind
from retina.datasets.formats.labelme import LabelmeConfig
from retina.datasets.formats.via import ViaConfig
from retina.datasets.formats.xml_files import root_tag
from retina.errors import UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.datasets import test_cvat, test_labelme, test_via  # type: ignore[import-not-found]

Tree = dict[str, Any]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


def coco(file: Path, *images: Path | str, **more: Any) -> Path:
    """A COCO file of these images, each with a box of a dog; the paths that exist are made."""
    tree: Tree = {
        "info": {"description": "pets"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "images": [
            {"id": at, "file_name": image if isinstance(image, str) else picture(image).name,
             "height": 40, "width": 60}
            for at, image in enumerate(images)
        ],
        "annotations": [
            {"id": at, "image_id": at, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600,
             "iscrowd": 0, "segmentation": []}
            for at in range(len(images))
        ],
        "categories": [{"id": 1, "name": "dog", "supercategory": "pet"}],
    }  # fmt: skip
    tree.update(more)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree))
    return file


def voc(annotations: Path, images: Path, *names: str, **more: str) -> None:
    """XML files as Roboflow and LabelImg write them, with their images."""
    annotations.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture(images / f"{name}.jpg")
        path = more.get("path", f"C:\\Users\\me\\{name}.jpg")
        (annotations / f"{name}.xml").write_text(
            f"<annotation>\n\t<folder></folder>\n\t<filename>{name}.jpg</filename>\n"
            f"\t<path>{path}</path>\n\t<source><database>roboflow.com</database></source>\n"
            "\t<size><width>60</width><height>40</height><depth>3</depth></size>\n"
            "\t<object><name>dog</name><pose>Unspecified</pose><difficult>0</difficult>"
            "<bndbox><xmin>1</xmin><xmax>31</xmax><ymin>2</ymin><ymax>22</ymax></bndbox>"
            "</object>\n</annotation>"
        )


def found(folder: Path) -> dict[str, tuple[Path, Path, int]]:
    """The splits in a folder, or its whole: images, annotations, and how many boxes are read."""
    source = find_source(folder)
    parts = source.splits or {"whole": source.whole}
    given = {}
    for name, part in parts.items():
        assert part is not None
        given[name] = (part.images, part.annotations, part.build().report.num_boxes)
    return given


def test_coco_with_images_beside_or_below(tmp_path: Path) -> None:
    for folder, images in (("a", "images"), ("b", "."), ("c", "imgs")):
        file = coco(tmp_path / folder / "export.json", tmp_path / folder / images / "1.jpg")
        assert found(tmp_path / folder) == {"whole": (file.parent / images, file, 1)}
        source = find_source(file)
        assert source.whole == CocoConfig(images=file.parent / images, annotations=file)


def test_roboflows_export(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "dog", "supercategory": "pets"},
        {"id": 2, "name": "cat", "supercategory": "pets"},
    ]
    for split in ("train", "valid", "test"):
        folder = tmp_path / split
        coco(folder / "_annotations.coco.json", folder / "a_jpg.rf.12.jpg", categories=categories)
    (tmp_path / "README.roboflow.txt").write_text("pets")
    assert found(tmp_path) == {
        name: (tmp_path / split, tmp_path / split / "_annotations.coco.json", 1)
        for name, split in (("train", "train"), ("validation", "valid"), ("test", "test"))
    }
    dataset = find_source(tmp_path).splits["train"].build()
    assert dataset.categories.names == ("dog", "cat")
    assert dataset.categories.dataset_ids == (1, 2)
    assert dataset.targets(0).labels.tolist() == [0]
    assert dataset.table.findings[0].startswith("the category 'pets', which Roboflow puts above")
    file = tmp_path / "train" / "_annotations.coco.json"
    assert len(read_coco_annotations(file).categories) == 3  # detections of it can be scored


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 0, "name": "pets", "supercategory": "none"},
         {"id": 1, "name": "dog", "supercategory": "animal"}],
        [{"id": 1, "name": "pets", "supercategory": "none"},
         {"id": 0, "name": "dog", "supercategory": "pets"}],
        [{"id": 1, "name": "dog", "supercategory": "none"}],
        [{"id": 1, "name": "dog", "supercategory": "none"},
         {"id": 2, "name": "cat", "supercategory": "none"}],
    ],
)  # fmt: skip
def test_only_an_unused_category_above_all_others_is_left_out(
    tmp_path: Path, categories: list[Tree]
) -> None:
    file = coco(tmp_path / "annotations.json", tmp_path / "1.jpg", categories=categories)
    dataset = CocoConfig(images=tmp_path, annotations=file).build()
    assert sorted(dataset.categories.names) == sorted(one["name"] for one in categories)


@pytest.mark.parametrize("place", ["{}2017", "images/{}2017", "{}", "images/{}", "images", "."])
def test_cocos_own_folders(tmp_path: Path, place: str) -> None:
    for split in ("train", "val"):
        name = f"{split}.jpg"
        folder = tmp_path / place.format(split)
        coco(
            tmp_path / f"annotations/instances_{split}2017.json", folder / name, folder / f"2{name}"
        )
        captions = [{"id": 1, "image_id": 0, "caption": "a dog"}]
        coco(tmp_path / f"annotations/captions_{split}2017.json", name, annotations=captions)
    assert found(tmp_path) == {
        name: (
            tmp_path / place.format(split),
            tmp_path / f"annotations/instances_{split}2017.json",
            2,
        )
        for name, split in (("train", "train"), ("validation", "val"))
    }


@pytest.mark.parametrize(
    ("train", "test"),
    [("train.json", "test.json"), ("train_annotations.json", "test_annotations.json"),
     ("lvis_v1_train.json", "image_info_test-dev2017.json"), ("pets-training.json", "Test.json")],
)  # fmt: skip
def test_files_that_are_called_as_splits(tmp_path: Path, train: str, test: str) -> None:
    coco(tmp_path / train, tmp_path / "images" / "1.jpg")
    coco(tmp_path / test, tmp_path / "images" / "2.jpg")
    assert found(tmp_path) == {
        "train": (tmp_path / "images", tmp_path / train, 1),
        "test": (tmp_path / "images", tmp_path / test, 1),
    }


def test_folders_of_splits_in_any_case(tmp_path: Path) -> None:
    coco(tmp_path / "a/Train/annotations.json", tmp_path / "a/Train/images/1.jpg")
    coco(tmp_path / "a/VAL/annotations.json", tmp_path / "a/VAL/images/1.jpg")
    assert list(found(tmp_path / "a")) == ["train", "validation"]
    for split in ("Train", "Test"):  # as CVAT exports a project to COCO's format
        coco(
            tmp_path / f"b/annotations/instances_{split}.json", tmp_path / f"b/images/{split}/1.jpg"
        )
        voc(tmp_path / "c/annotations" / split, tmp_path / "c/images" / split, "a")
    assert [images for images, _, _ in found(tmp_path / "b").values()] == [
        tmp_path / "b/images/Train",
        tmp_path / "b/images/Test",
    ]
    assert list(found(tmp_path / "c")) == ["train", "test"]


def test_the_folder_that_holds_the_images_is_taken(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "other.jpg")
    file = coco(tmp_path / "annotations.json", tmp_path / "1.jpg", tmp_path / "2.jpg")
    assert found(tmp_path) == {"whole": (tmp_path, file, 2)}


def test_several_files_of_one_split_are_told(tmp_path: Path) -> None:
    for name in ("train_a.json", "train_b.json"):
        coco(tmp_path / name, tmp_path / "images" / "1.jpg")
    with pytest.raises(UserError, match=r"several annotation files of train: train_a\.json, train"):
        find_source(tmp_path)


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images"])
def test_lvis_has_addresses_in_the_place_of_names(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / folder / "000000391895.jpg")
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    image = {"id": 391895, "coco_url": url, "height": 40, "width": 60, "neg_category_ids": [2],
             "not_exhaustive_category_ids": []}  # fmt: skip
    box = {"id": 1, "image_id": 391895, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600.0}
    categories = [{"id": 1, "name": "dog", "synset": "dog.n.01", "frequency": "f"}]
    coco(tmp_path / "lvis_v1_train.json", images=[image], annotations=[box], categories=categories)
    source = find_source(tmp_path)
    assert source.whole is not None
    dataset = source.whole.build()
    assert dataset.image_ids.tolist() == [391895]
    assert Path(dataset.file_path(0)).is_file()
    assert dataset.report.findings[0].startswith("1 of 1 images are named by an address")


def test_lvis_images_of_both_of_cocos_folders(tmp_path: Path) -> None:
    images = []
    for number, folder in enumerate(("train2017", "val2017")):
        picture(tmp_path / "images" / folder / f"{number}.jpg")
        url = f"http://images.cocodataset.org/{folder}/{number}.jpg"
        images.append({"id": number, "coco_url": url, "height": 40, "width": 60})
    file = coco(tmp_path / "lvis.json", images=images)
    dataset = CocoConfig(images=tmp_path / "images", annotations=file).build()
    assert len(dataset) == 2
    assert find_source(tmp_path).whole == CocoConfig(images=tmp_path / "images", annotations=file)


def test_objects365(tmp_path: Path) -> None:
    names = []
    for version, number in (("v1", 8), ("v2", 17)):
        names.append(f"images/{version}/patch{number}/objects365_{version}_{number}.jpg")
        picture(tmp_path / "train" / f"patch{number}" / f"objects365_{version}_{number}.jpg")
    file = coco(tmp_path / "zhiyuan_objv2_train.json", *names)
    assert found(tmp_path) == {"whole": (tmp_path / "train", file, 2)}


def test_a_test_split_has_no_annotations(tmp_path: Path) -> None:
    file = coco(tmp_path / "annotations" / "image_info_test2017.json", tmp_path / "test2017/1.jpg")
    tree = json.loads(file.read_text())
    del tree["annotations"]
    file.write_text(json.dumps(tree))
    assert found(tmp_path) == {"whole": (tmp_path / "test2017", file, 0)}


def test_a_large_file_is_told_by_its_beginning(tmp_path: Path) -> None:
    """What stands behind the beginning is not looked at: here it is no JSON any more."""
    images = [{"id": at, "file_name": f"{at}.jpg"} for at in range(100_000)]
    file = coco(tmp_path / "large.json", images=images)
    file.write_bytes(file.read_bytes()[:-1000] + b"\xff" * 1000)
    picture(tmp_path / "7.jpg")
    assert find_source(tmp_path).whole == CocoConfig(images=tmp_path, annotations=file)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("Annotations", "JPEGImages"), ("annotations", "images"), ("Annotations", "images"),
     ("xmls", "images"), (".", "."), ("images", "images"), ("annotations", ".")],
)  # fmt: skip
def test_voc_in_its_layouts(tmp_path: Path, annotations: str, images: str) -> None:
    voc(tmp_path / "whole" / annotations, tmp_path / "whole" / images, "a", "b")
    assert found(tmp_path / "whole") == {
        "whole": (tmp_path / "whole" / images, tmp_path / "whole" / annotations, 2)
    }
    for split in ("train", "valid"):
        voc(tmp_path / "parts" / split / annotations, tmp_path / "parts" / split / images, split)
    assert found(tmp_path / "parts") == {
        name: (
            tmp_path / "parts" / split / images,
            tmp_path / "parts" / split / annotations,
            1,
        )
        for name, split in (("train", "train"), ("validation", "valid"))
    }


@pytest.mark.parametrize("kinds", [("annotations", "images"), ("images", "images")])
def test_voc_with_splits_within_its_folders(tmp_path: Path, kinds: tuple[str, str]) -> None:
    for split in ("train", "test"):
        voc(*(tmp_path / kind / split for kind in kinds), split)
    assert found(tmp_path) == {
        split: (tmp_path / kinds[1] / split, tmp_path / kinds[0] / split, 1)
        for split in ("train", "test")
    }


@pytest.mark.parametrize("lists", ["ImageSets/Main", "ImageSets", "splits"])
def test_voc_with_lists_of_its_splits(tmp_path: Path, lists: str) -> None:
    voc(tmp_path / "annotations", tmp_path / "images", "a", "b", "c")
    (tmp_path / lists).mkdir(parents=True)
    (tmp_path / lists / "train.txt").write_text("a\nb\n")
    (tmp_path / lists / "test.txt").write_text("c\n")
    assert {name: boxes for name, (_, _, boxes) in found(tmp_path).items()} == {
        "train": 2,
        "test": 1,
    }


def test_a_single_xml_file_is_a_set_of_one_image(tmp_path: Path) -> None:
    voc(tmp_path, tmp_path, "a", "b")
    source = find_source(tmp_path / "a.xml")
    assert source.whole == VocConfig(images=tmp_path, annotations=tmp_path / "a.xml")
    assert len(source.whole.build()) == 1


def test_a_data_set_below_the_folder_is_found(tmp_path: Path) -> None:
    devkit = tmp_path / "VOCdevkit"
    voc(devkit / "VOC2007" / "Annotations", devkit / "VOC2007" / "JPEGImages", "a")
    (devkit / "VOCcode").mkdir()
    (tmp_path / "__MACOSX" / "VOCdevkit").mkdir(parents=True)
    for folder in (tmp_path, devkit):
        source = find_source(folder)
        assert source.path == devkit / "VOC2007"
        assert source.describe() == f"{devkit / 'VOC2007'} is taken for Pascal VOC"
    voc(devkit / "VOC2012" / "Annotations", devkit / "VOC2012" / "JPEGImages", "a")
    with pytest.raises(UserError, match=r"several data sets: .*VOC2007, .*VOC2012; name one of"):
        find_source(tmp_path)


# What each format's usual folder is taken for; no format may claim another's.

Maker = Callable[[Path], object]


def _labelme(folder: Path) -> None:
    box = test_labelme.shape("dog", "rectangle", (1, 1), (9, 9))
    test_labelme.write(folder, "a", box)


def _labelme_in_two_folders(folder: Path) -> None:
    _labelme(folder / "images")
    (folder / "annotations").mkdir()
    (folder / "images" / "a.json").rename(folder / "annotations" / "a.json")


def _via(folder: Path) -> None:
    images = test_via.images_of(folder, [test_via.region(kind="dog")])
    (folder / "via_project_1Jan2024_1h2m.json").write_text(json.dumps(test_via.project(images)))


def _via_export(folder: Path) -> None:
    images = test_via.images_of(folder / "images", [test_via.region(kind="dog")])
    (folder / "annotations.json").write_text(json.dumps(images))


def _via_csv(folder: Path) -> None:
    images = test_via.images_of(folder, [test_via.region(kind="dog")])
    test_via.write_csv(folder / "via_export_csv.csv", images)


def _yolo(to: Path) -> None:
    picture(to / "images" / "1.jpg")
    (to / "labels").mkdir()
    (to / "labels" / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (to / "classes.txt").write_text("cat\n")
    (to / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}]}))


def _yolo_beside(to: Path) -> None:
    picture(to / "1.jpg")
    (to / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (to / "classes.txt").write_text("cat\n")


def _csv(to: Path) -> None:
    picture(to / "images" / "1.jpg")
    (to / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n1.jpg,cat,1,2,5,6\n")


FOLDERS: dict[str, tuple[type[FolderConfig], Maker]] = {
    "coco": (CocoConfig, lambda to: coco(to / "annotations.json", to / "images" / "1.jpg")),
    "coco of any name": (CocoConfig, lambda to: coco(to / "pets.json", to / "1.jpg")),
    "coco in annotations": (CocoConfig, lambda to: coco(to / "annotations/x.json", to / "1.jpg")),
    "voc": (VocConfig, lambda to: voc(to / "Annotations", to / "JPEGImages", "a")),
    "voc in small letters": (VocConfig, lambda to: voc(to / "annotations", to / "images", "a")),
    "voc in one folder": (VocConfig, lambda to: voc(to, to, "a")),
    "labelme": (LabelmeConfig, _labelme),
    "labelme in two folders": (LabelmeConfig, _labelme_in_two_folders),
    "cvat": (CvatConfig, lambda to: test_cvat.write(to, ("", test_cvat.BOX))),
    "via": (ViaConfig, _via),
    "via export": (ViaConfig, _via_export),
    "via csv": (ViaConfig, _via_csv),
    "yolo": (YoloConfig, _yolo),
    "yolo beside the images": (YoloConfig, _yolo_beside),
    "csv": (CsvConfig, _csv),
}


@pytest.mark.parametrize("called", FOLDERS)
def test_no_format_claims_the_folder_of_another(tmp_path: Path, called: str) -> None:
    format_, make = FOLDERS[called]
    folder = tmp_path / "whole"
    folder.mkdir()
    make(folder)
    source = find_source(folder)
    assert (source.format, source.others) == (format_, ())
    assert source.whole is not None
    assert source.whole.build().report.num_boxes == 1
    annotations = source.whole.annotations
    assert format_of(annotations) is format_
    if annotations.is_file():
        assert find_source(annotations).whole == source.whole
    for split in ("train", "val"):
        (tmp_path / "parts" / split).mkdir(parents=True)
        make(tmp_path / "parts" / split)
    source = find_source(tmp_path / "parts")
    assert (source.format, source.others) == (format_, ())
    assert list(source.splits) == ["train", "validation"]


@pytest.mark.parametrize("called", FOLDERS)
def test_every_command_takes_every_format(invoke: Invoke, tmp_path: Path, called: str) -> None:
    FOLDERS[called][1](tmp_path / "set")
    done = invoke("data", "check", tmp_path / "set")
    assert done.code == 0, done.err
    assert f"is taken for {FOLDERS[called][0].title}" in done.out
    assert "every image can be used" in done.out
    fixed = tmp_path / "fixed.json"
    done = invoke("data", "fix", tmp_path / "set", "--output", fixed)
    assert done.code == 0, done.err
    written = next(path for path in (fixed, fixed / "annotations.json") if path.is_file())
    assert len(json.loads(written.read_text())["annotations"]) == 1


def test_json_files_are_told_apart_whatever_they_hold(tmp_path: Path) -> None:
    def kind(text: str | bytes) -> str:
        path = tmp_path / "a.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return json_kind(path)

    assert kind('{"images": [{"shapes": 1}], "x": {"filename": 1}}') == "coco"
    assert kind('{"info": {"shapes": "imageData"}, "licenses": []}') == "coco"
    assert kind('{"a \\" {": 1, "annotations": []}'.encode("utf-16")) == "coco"
    assert kind('{"version": "5", "shapes": [') == "labelme"
    assert kind('{"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": []}}') == "via"
    for other in ("", "{", "[]", '[{"image_id": 1}]', "null", '{"a": {"b": 1}}', "\0\1\2", "<a/>"):
        assert kind(other) == ""
    assert json_kind(tmp_path) == json_kind(tmp_path / "gone.json") == ""


def test_the_root_of_an_xml_file(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for text, root in (
        ('\ufeff<?xml version="1.0"?>\n<!-- <annotation> -->\n<annotations x="1">', "annotations"),
        ("<annotation/>", "annotation"),
        ('<!DOCTYPE a [<!ENTITY b "<c>">]><a>', "a"),
        ("<?a?>" * 700, ""),
        ("{}", ""),
    ):
        path.write_text(text)
        assert root_tag(path) == root
