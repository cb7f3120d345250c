"""Pascal VOC: boxes as written, difficult objects, splits, and one clear error each."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retina.datasets.ids import numbers_of_names
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
    assert np.array(dataset.ground_truth().is_difficult).tolist() == [False, False, True]


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


def with_fields(path: Path, **fields: str) -> None:
    """Give the first object of an XML file, or its size, other values."""
    text = path.read_text()
    for tag, value in fields.items():
        text = re.sub(f"<{tag}>[^<]*</{tag}>", f"<{tag}>{value}</{tag}>", text, count=1)
        if f"<{tag}>" not in text:
            text = text.replace("</name>", f"</name><{tag}>{value}</{tag}>", 1)
    path.write_text(text)


@pytest.mark.parametrize(
    ("tag", "value", "is_crowd"),
    [
        *(("difficult", value, False) for value in ("Unspecified", "", "2", "-1", "no", "0.0")),
        *(("difficult", value, True) for value in ("1", "true", "Yes", "1.0")),
        *((tag, "?", False) for tag in ("pose", "truncated", "occluded", "depth", "segmented")),
        *(("width", value, False) for value in ("-1", "0", "nan", "wide", "60.5", "")),
    ],
)
def test_what_decides_little_may_be_anything(
    write_voc: VocWriter, tag: str, value: str, is_crowd: bool
) -> None:
    images, annotations = write_voc(TWO)
    with_fields(annotations / "img_0010.xml", **{tag: value})
    dataset = read_voc(images, annotations)
    assert dataset.targets(2).is_crowd.tolist() == [is_crowd, True]
    assert dataset.image_sizes.tolist() == [[40, 60]] * 3
    if value == "Unspecified":
        assert (
            "1 value of an optional field makes no sense: taken as not given (the first: "
            "img_0010.xml, <difficult> of object 1 is 'Unspecified')"
        ) in dataset.report.findings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk"])
def test_any_encoding(write_voc: VocWriter, encoding: str) -> None:
    images, annotations = write_voc(TWO)
    path = annotations / "img_0010.xml"
    declared = '<?xml version="1.0" encoding="gbk"?>' if encoding == "gbk" else ""
    text = declared + path.read_text().replace("<name>dog</name>", "<name>狗</name>")
    path.write_bytes(text.encode(encoding))
    assert read_voc(images, annotations).categories.names == ("ape", "cat", "狗")


def test_what_machines_leave_lying_around_is_no_annotation(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    (annotations / "._img_0002.xml").write_bytes(b"\0\5\x16\7\0\2")
    (annotations / ".ipynb_checkpoints").mkdir()
    (annotations / ".ipynb_checkpoints" / "img_0002-checkpoint.xml").write_text("<a/>")
    (images / "._img_0002.png").write_bytes(b"\0\5\x16\7\0\2")
    (annotations / "img_0005.xml").rename(annotations / "img_0005.XML")
    assert read_voc(images, annotations).image_ids.tolist() == [2, 5, 10]


def test_a_list_may_name_the_files_and_repeat_itself(write_voc: VocWriter, tmp_path: Path) -> None:
    split = tmp_path / "train.txt"
    split.write_bytes("img_0010.png\n./img_0002\nimg_0010\nimg_0005.xml".encode("utf-16"))
    dataset = read_voc(*write_voc(TWO), split=split)
    assert dataset.image_ids.tolist() == [10, 2, 5]
    assert "1 line repeats a name of the list: read once" in dataset.report.findings


def test_files_of_one_image_are_one_image(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    text = (annotations / "img_0002.xml").read_text()
    text = re.sub("<filename>[^<]*</filename>", "", text)
    named = text.replace("<annotation>", "<annotation><filename>img_0002.png</filename>")
    (annotations / "object_7.xml").write_text(named.replace("ape", "cat"))
    dataset = read_voc(images, annotations)
    assert len(dataset) == 3
    assert dataset.targets(0).labels.tolist() == [0, 1]
    assert (
        "1 of 4 entries list an image that is listed before: merged, with all their annotations "
        "(the first: object_7.xml, 'img_0002.jpg')"
    ) in dataset.report.findings


def test_all_broken_files_are_told_at_once(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    (annotations / "img_0002.xml").write_text("<annotation>")
    (annotations / "img_0010.xml").write_text("<html></html>")
    with pytest.raises(UserError) as caught:
        read_voc(images, annotations)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{annotations}: 2 problems"
    assert lines[1].startswith(f"  {annotations / 'img_0002.xml'}: not readable as XML")
    assert lines[2].endswith("is no Pascal VOC annotation: its root is <html>")


def test_the_image_of_a_stem_in_another_spelling(write_voc: VocWriter) -> None:
    images, annotations = write_voc(TWO)
    (images / "img_0010.jpg").rename(images / "IMG_0010.JPG")
    dataset = read_voc(images, annotations)
    assert dataset.file_path(2) == str(images / "IMG_0010.JPG")
