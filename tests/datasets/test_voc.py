"""Pascal VOC: boxes as written, difficult objects, splits, and one clear error each."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retina.datasets.voc import numbers_of_names
from retina.errors import UserError
from retina.structures import Categories
from tests.reading import read_voc  # type: ignore[import-not-found]

VocWriter = Callable[..., tuple[Path, Path]]

TWO = {
    "img_0010": [("dog", (10, 5, 30, 15), 0), ("cat", (1, 1, 60, 40), 1)],
    "img_0002": [("ape", (2.5, "3", "4.25", 9), 0)],
    "img_0005": [],
}


def test_a_folder_is_read_in_the_order_of_the_names(write_voc: VocWriter) -> None:
    dataset = read_voc(*write_voc(TWO))
    assert dataset.image_ids.tolist() == [2, 5, 10]
    assert dataset.categories == Categories(("ape", "cat", "dog"), (1, 2, 3))
    assert dataset.image_sizes.tolist() == [[40, 60]] * 3
    assert dataset.targets(0).boxes.tolist() == [[2.5, 3, 4.25, 9]]
    assert dataset.targets(2).boxes.tolist() == [[10, 5, 30, 15], [1, 1, 60, 40]]
    assert dataset.targets(2).labels.tolist() == [2, 1]
    assert dataset.targets(2).is_crowd.tolist() == [False, True]
    assert dataset.load(2).size == (40, 60)
    truth = dataset.ground_truth()
    assert truth.annotation_ids.tolist() == [1, 2, 3]
    assert truth.boxes_xywh.tolist() == [[2.5, 3, 1.75, 6], [10, 5, 20, 10], [1, 1, 59, 39]]
    assert truth.areas.tolist() == [10.5, 200, 59 * 39]
    report = dataset.report
    assert (report.num_boxes, report.num_crowd, report.num_empty_images) == (2, 1, 1)
    assert report.findings == ("1 object marked as difficult: ignored in training and evaluation",)


def test_difficult_objects_can_be_taken_as_any_other(write_voc: VocWriter) -> None:
    dataset = read_voc(*write_voc(TWO), difficult_as_crowd=False)
    assert dataset.ground_truth().is_crowd.tolist() == [False] * 3
    assert dataset.report.findings == ("1 object marked as difficult: taken as any other",)


def test_one_based_boxes_gain_the_first_pixel(write_voc: VocWriter) -> None:
    dataset = read_voc(*write_voc(TWO), one_based=True)
    assert dataset.targets(2).boxes.tolist() == [[9, 4, 30, 15], [0, 0, 60, 40]]


def test_a_split_lists_names_in_its_own_order(write_voc: VocWriter, tmp_path: Path) -> None:
    folders = write_voc(TWO)
    split = tmp_path / "train.txt"
    split.write_text("img_0010\n\n  img_0002 \r\n")
    dataset = read_voc(*folders, split=split)
    assert dataset.image_ids.tolist() == [10, 2]
    assert dataset.targets(0).labels.tolist() == [2, 1]


def test_image_ids_are_the_digits_of_the_names_or_ranks() -> None:
    assert numbers_of_names(["2008_000007", "2008_000002"]).tolist() == [2008000007, 2008000002]
    assert numbers_of_names(["b1", "a1"]).tolist() == [2, 1]
    assert numbers_of_names(["b", "a", "3"]).tolist() == [3, 2, 1]
    assert numbers_of_names(["f" + "1" * 30, "a2"]).tolist() == [2, 1]


def test_zero_size_and_inverted_boxes(write_voc: VocWriter) -> None:
    boxes = {"a": [("x", (5, 5, 5, 9), 0), ("x", (20, 30, 10, 12), 0), ("x", (50, 30, 70, 39), 0)]}
    dataset = read_voc(*write_voc(boxes))
    assert dataset.targets(0).boxes.tolist() == [[10, 12, 20, 30], [50, 30, 60, 39]]
    assert [finding.split(" (first")[0] for finding in dataset.report.findings] == [
        "1 box without a width or a height: dropped",
        "1 box with swapped corners: turned round",
        "1 box reaching out of the image (by up to 10 pixels): clipped",
    ]
    assert len(dataset.ground_truth().areas) == 3


def test_the_image_with_the_same_stem_counts_not_what_the_xml_says(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    xml = annotations / "img_0002.xml"
    xml.write_text(xml.read_text().replace("img_0002.jpg", "img_0010.jpg"))
    (images / "img_0005.jpg").rename(images / "img_0005.JPG")
    cv2.imwrite(str(images / "img_0010.png"), np.zeros((40, 60, 3), np.uint8))
    dataset = read_voc(images, annotations)
    names = [Path(dataset.file_path(index)).name for index in range(3)]
    assert names == ["img_0002.jpg", "img_0005.JPG", "img_0010.jpg"]
    assert "2 of 3 annotation files name another image file" in dataset.report.findings[0]


def test_the_file_name_counts_where_no_image_has_the_stem(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    (annotations / "img_0002.xml").rename(annotations / "other.xml")
    dataset = read_voc(images, annotations)
    assert Path(dataset.file_path(2)).name == "img_0002.jpg"


def test_missing_size_is_read_from_the_file(write_voc: VocWriter) -> None:
    dataset = read_voc(*write_voc(TWO, size="<size><width>0</width></size>"))
    assert dataset.image_sizes.tolist() == [[40, 60]] * 3


def test_parts_of_objects_are_no_objects(write_voc: VocWriter) -> None:
    images, annotations = write_voc({"a": [("person", (1, 1, 20, 20), 0)]})
    xml = annotations / "a.xml"
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax>"
    xml.write_text(xml.read_text().replace("</object>", f"{part}</bndbox></part></object>"))
    assert read_voc(images, annotations).targets(0).boxes.tolist() == [[1, 1, 20, 20]]


def test_pickled_copies_are_equal(write_voc: VocWriter) -> None:
    dataset = read_voc(*write_voc(TWO))
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.load(0).image, dataset.load(0).image)
    assert copy.report == dataset.report


def bomb() -> str:
    entities = '<!ENTITY a0 "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)
    )
    return f"<!DOCTYPE x [{entities}]><annotation><filename>&a11;</filename></annotation>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not readable as XML: no element found"),
        ("<annotation><object>", "not readable as XML: .*line 1, column 20; .*incomplete"),
        ("<html></html>", "is no Pascal VOC annotation: its root is <html>"),
        (bomb(), "holds a DOCTYPE"),
        ("<annotation><object><name> </name></object></annotation>", "object 1: has no <name>"),
        (
            "<annotation><object><name>dog</name><bndbox><xmin>1</xmin></bndbox></object>"
            "</annotation>",
            r"object 1 \('dog'\): needs a <bndbox> with <xmin> <ymin> <xmax> <ymax>",
        ),
        (
            "<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>x</ymin>"
            "<xmax>1</xmax><ymax>1</ymax></bndbox></object></annotation>",
            "<bndbox><ymin> must be a number, is 'x'",
        ),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "encoding 'klingon', .*unknown"),
    ],
)
def test_a_bad_annotation_file_is_one_clear_error(
    write_voc: VocWriter, content: str, message: str
) -> None:
    images, annotations = write_voc(TWO)
    (annotations / "img_0002.xml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_voc(images, annotations)
    assert str(caught.value).startswith(str(annotations / "img_0002.xml"))


def test_a_doctype_in_utf_16_is_refused_too(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    (annotations / "img_0002.xml").write_bytes(bomb().encode("utf-16"))
    with pytest.raises(UserError, match="holds a DOCTYPE"):
        read_voc(images, annotations)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "the split file lists no name"),
        ("img_0010\nimg_9\nimg_8", r"2 of 3 names have no XML file in .*: 'img_9' \(line 2\)"),
        ("../img_0010", "line 1: '../img_0010' does not name a file below"),
    ],
)
def test_a_bad_split_is_one_clear_error(
    write_voc: VocWriter, tmp_path: Path, lines: str, message: str
) -> None:
    folders = write_voc(TWO)
    split = tmp_path / "train.txt"
    split.write_text(lines)
    with pytest.raises(UserError, match=message):
        read_voc(*folders, split=split)


def test_missing_folders_images_and_files(write_voc: VocWriter, tmp_path: Path) -> None:
    images, annotations = write_voc(TWO)
    with pytest.raises(UserError, match="no such split file"):
        read_voc(images, annotations, split=tmp_path / "gone.txt")
    with pytest.raises(UserError, match="gone: no such folder of Pascal VOC annotations"):
        read_voc(images, tmp_path / "gone")
    with pytest.raises(UserError, match="gone: no such image folder"):
        read_voc(tmp_path / "gone", annotations)
    (images / "img_0005.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images are not in .*: img_0005\.jpg; add them"):
        read_voc(images, annotations)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the data set is empty: there is no XML file"):
        read_voc(images, tmp_path / "empty")


def test_a_split_without_any_object_cannot_define_classes(write_voc: VocWriter) -> None:
    folders = write_voc({"a": []})
    with pytest.raises(UserError, match="no category to learn, since no annotation uses any; corr"):
        read_voc(*folders)
    assert len(read_voc(*folders, categories=Categories(("dog",), (1,)))) == 1


def test_classes_and_expected_categories(write_voc: VocWriter) -> None:
    folders = write_voc(TWO)
    chosen = read_voc(*folders, classes=("dog", "ape"))
    assert chosen.categories.names == ("dog", "ape")
    train = Categories(("cat", "dog", "emu", "ape"), (1, 2, 3, 4))
    read = read_voc(*folders, categories=train)
    assert read.categories.names == train.names
    assert read.targets(2).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"does not have: ape .*, cat"):
        read_voc(*folders, categories=Categories(("dog",), (1,)))
