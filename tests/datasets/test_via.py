"""The VGG Image Annotator: projects and exports, which attribute is the class, one clear error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retina.datasets import CocoConfig, find_source
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.via import ViaConfig
from retina.errors import UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]

SHAPES: dict[str, dict[str, Any]] = {
    "rect": {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 10},
    "polygon": {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 4, 20]},
    "circle": {"name": "circle", "cx": 30, "cy": 20, "r": 5.5},
    "ellipse": {"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 5, "theta": 1.5707963267949},
    "old ellipse": {"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 5},
    "point": {"name": "point", "cx": 30, "cy": 20},
    "polyline": {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [2, 4]},
}
BOXES = [[10, 5, 30, 15], [1, 2, 9, 20], [24.5, 14.5, 35.5, 25.5], [25, 10, 35, 30],
         [20, 15, 40, 25]]  # fmt: skip


def region(shape: str = "rect", **attributes: object) -> Any:
    return {"shape_attributes": SHAPES[shape], "region_attributes": attributes}


def images_of(folder: Path, *regions: list[Any]) -> dict[str, Any]:
    """Images of 40 × 60 with these regions, as ``_via_img_metadata`` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {}
    for number, inside in enumerate(regions):
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
        size = path.stat().st_size
        tree[f"{path.name}{size}"] = {
            "filename": path.name, "size": size, "regions": inside, "file_attributes": {},
        }  # fmt: skip
    return tree


def project(images: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """A project file of VIA 2 with these attributes of regions."""
    return {
        "_via_settings": {"ui": {"image": {"region_label": "class"}}, "core": {"filepath": {}}},
        "_via_img_metadata": images,
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }


def write_csv(path: Path, images: dict[str, Any], *, mark: str = "", delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(
            [f"{mark}filename", "file_size", "file_attributes", "region_count", "region_id",
             "region_shape_attributes", "region_attributes"]
        )  # fmt: skip
        for image in images.values():
            start = [image["filename"], image["size"], "{}", len(image["regions"])]
            for number, one in enumerate(image["regions"]):
                parts = ("shape_attributes", "region_attributes")
                rows.writerow([*start, number, *(json.dumps(one[part]) for part in parts)])
            if not image["regions"]:
                rows.writerow([*start, 0, "{}", "{}"])


def read(path: Path, tree: object = None, **options: str) -> FolderDataset:
    if tree is not None:
        path.write_text(json.dumps(tree))
    return ViaConfig(images=path.parent, annotations=path, **options).build()


@pytest.mark.parametrize("as_what", ["project", "export", "via 1", "csv", "old csv", "excel"])
def test_every_shape_has_its_box(tmp_path: Path, as_what: str) -> None:
    kinds = list(SHAPES)
    images = images_of(
        tmp_path, [region(kind, kind="dog") for kind in kinds], [], [region(kind="猫")]
    )
    path = tmp_path / "via.json"
    tree: Any = project(images, kind={"type": "text"}) if as_what == "project" else images
    if as_what == "via 1":
        for record in tree.values():
            record["regions"] = {str(at): one for at, one in enumerate(record["regions"])}
            record |= {"fileref": "", "base64_img_data": "A" * 100_000}
        tree = {key: {"fileref": "", "size": 1, **record} for key, record in tree.items()}
    path.write_text(json.dumps(tree))
    if "csv" in as_what or as_what == "excel":
        path.unlink()
        path = tmp_path / "via.csv"
        mark, delimiter = "#" * (as_what == "old csv"), ";" if as_what == "excel" else ","
        write_csv(path, images, mark=mark, delimiter=delimiter)
    for source in (find_source(path), find_source(tmp_path)):
        assert source.describe().endswith("is taken for VGG Image Annotator")
        assert source.whole == ViaConfig(images=tmp_path, annotations=path)
    dataset = read(path)
    assert dataset.categories.names == ("dog", "猫")
    assert np.array(dataset.targets(0).boxes) == pytest.approx(np.array(BOXES), abs=1e-4)
    assert dataset.targets(2).labels.tolist() == [1]
    assert dataset.report.num_empty_images == 1
    assert dataset.report.findings[0] == (
        "2 shapes without a box are passed over: 1 point, 1 polyline"
    )


CHOICES = {"type": "dropdown", "options": {"dog": "", "cat": "a cat", "ape": ""}}
TICKED = {"type": "checkbox", "options": {"dog": "", "cut": ""}}


@pytest.mark.parametrize(
    ("values", "about", "expected"),
    [
        ({"what": "dog"}, {}, ("dog",)),
        ({"class": "dog", "pose": "left"}, {}, ("dog",)),
        ({"Label": "dog", "note": "?"}, {}, ("dog",)),
        ({"what": "cat", "name": "Tom"}, {"what": CHOICES}, ("dog", "cat", "ape")),
        ({"class": "dog", "pose": "left"}, {"pose": CHOICES}, ("dog",)),
        ({"type": "dog", "note": "?"}, {}, ("dog",)),
        ({"what": "dog", "note": ""}, {}, ("dog",)),
        ({"what": {"dog": True, "cut": False}}, {"what": TICKED}, ("dog", "cut")),
        ({"what": "2"}, {"what": {"type": "radio", "options": {"2": "dog", "7": "cat"}}},
         ("dog", "cat")),
    ],
)  # fmt: skip
def test_the_attribute_that_is_the_class_is_found(
    tmp_path: Path, values: dict[str, Any], about: dict[str, Any], expected: tuple[str, ...]
) -> None:
    images = images_of(tmp_path, [region(**values)])
    dataset = read(tmp_path / "via.json", project(images, **about))
    assert dataset.categories.names == expected
    used = "cat" if values.get("what") == "cat" else "dog"
    assert dataset.categories.names[dataset.targets(0).labels[0]] == used


def test_where_it_is_not_clear_it_is_asked(tmp_path: Path) -> None:
    images = images_of(tmp_path, [region(animal="dog", pose="left")])
    with pytest.raises(
        UserError, match=r"is their class: animal, pose\? Say so in a config, beside"
    ):
        read(tmp_path / "via.json", images)
    assert read(tmp_path / "via.json", class_attribute="pose").categories.names == ("left",)
    with pytest.raises(UserError, match="no region has 'breed'; there is animal, pose"):
        read(tmp_path / "via.json", class_attribute="breed")


def test_regions_without_any_attribute_are_of_one_class(tmp_path: Path) -> None:
    dataset = read(tmp_path / "via.json", images_of(tmp_path, [region(), region("circle")]))
    assert dataset.categories.names == ("object",)
    assert dataset.report.findings[0] == (
        "no region has an attribute: all are of one class, 'object'"
    )


@pytest.mark.parametrize(
    "told", ["https://example.org/pets/0.jpg", "/home/me/0.jpg", "C:\\pets\\0.jpg", "../0.jpg"]
)
def test_of_an_address_or_a_path_elsewhere_the_end_counts(tmp_path: Path, told: str) -> None:
    images = images_of(tmp_path, [region(kind="dog")])
    for record in images.values():
        record["filename"] = told
    assert Path(read(tmp_path / "via.json", images).file_path(0)) == tmp_path / "0.jpg"


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wide = region(kind="dog")
    wide["shape_attributes"] = {"name": "rect", "x": 1, "y": 1, "width": "wide", "height": 3}
    images = images_of(tmp_path, [region(kind="dog"), region(), wide, {"shape": 1}])
    images["other"] = {"size": 5}
    with pytest.raises(UserError) as caught:
        read(tmp_path / "via.json", images)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'via.json'}: 4 problems\n")
    for part in (
        "'0.jpg', region 1: the box has no class",
        '\'0.jpg\', region 2: no shape that can be read: {"name": "rect"',
        "'0.jpg', region 3: needs 'shape_attributes'",
        "'other': needs a 'filename'",
    ):
        assert part in message


def test_a_bad_csv_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "via.csv"
    write_csv(path, images_of(tmp_path, [region(kind="dog")]))
    path.write_text(path.read_text().replace('""name"":', '""name""'))
    with pytest.raises(
        UserError, match=r"via\.csv: line 2: a region's attributes are not readable"
    ):
        read(path)
    path.write_text("filename,region_attributes\n")
    with pytest.raises(UserError, match="lacks VIA's column region_shape_attributes"):
        read(path)


def test_a_project_of_via_3_is_told(tmp_path: Path) -> None:
    tree = {"project": {}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}
    images_of(tmp_path, [])
    (tmp_path / "via.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="is a project of VIA 3, which is not read; export it in C"):
        read(tmp_path / "via.json")
    assert find_source(tmp_path).format is ViaConfig


def test_its_coco_export_is_read_as_coco(tmp_path: Path) -> None:
    images_of(tmp_path, [])
    url = "http://www.robots.ox.ac.uk/~vgg/software/via/"
    box = {"segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]], "area": 200, "iscrowd": 0}
    tree = {
        "info": {"year": 2024, "version": "1.0", "description": "VIA project", "url": url},
        "images": [{"id": "1", "width": 60, "height": 40, "file_name": "0.jpg", "license": 0,
                    "flickr_url": "0.jpg", "coco_url": "0.jpg", "date_captured": ""}],
        "annotations": [
            {**box, "bbox": [10, 5, 20, 10], "id": 1, "image_id": "1", "category_id": "1"},
            {**box, "bbox": [], "area": [], "keypoints": [30, 20, 2], "num_keypoints": 1, "id": 2,
             "image_id": "1", "category_id": "1"},
        ],
        "licenses": [{"id": 0, "name": "Unknown License", "url": ""}],
        "categories": [{"supercategory": "kind", "id": "1", "name": "dog"}],
    }  # fmt: skip
    (tmp_path / "via_export_coco.json").write_text(json.dumps(tree))
    source = find_source(tmp_path)
    assert source.format is CocoConfig
    assert source.whole is not None
    dataset = source.whole.build()
    assert dataset.targets(0).boxes.tolist() == [[10, 5, 30, 15]]
    assert dataset.report.findings == ("1 of 2 annotations have no box (points): left out",)


def test_the_command_line(invoke: Invoke, tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        folder = tmp_path / "balloon" / split
        images = images_of(folder, *[[region("polygon")]] * count)
        (folder / "via_region_data.json").write_text(json.dumps(images))
    done = invoke("data", "check", tmp_path / "balloon", "--split", "train")
    assert done.code == 0, done.err
    assert "is taken for VGG Image Annotator: train, validation" in done.out
    assert "2 images, 2 boxes" in done.out
    assert "every image can be used" in done.out
    path = tmp_path / "balloon" / "via.csv"
    images = images_of(path.parent, [region(animal="dog", pose="left")])
    write_csv(path, images)
    done = invoke("data", "check", path)
    assert done.code == 2
    assert "class_attribute: NAME" in done.err
