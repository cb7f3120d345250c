"""CVAT for images: shapes and their boxes, labels, subsets, names, and one clear error each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retina.datasets import find_source
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.cvat import CvatConfig
from retina.errors import UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]

META = """<meta>
    <task>
      <id>4</id><name>animals</name><size>2</size><mode>annotation</mode><overlap>0</overlap>
      <labels>
        <label><name>dog</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
        <label><name>cat</name><attributes>
          <attribute><name>age</name><values>young</values></attribute></attributes></label>
        <label><name>ape</name><type>rectangle</type></label>
        <label><name>good_frame</name><type>tag</type></label>
        <label><name>body</name><type>skeleton</type></label>
        <label><name>1</name><type>points</type><parent>body</parent></label>
      </labels>
    </task>
    <dumped>2024-01-01 12:00:00.000000+00:00</dumped>
  </meta>"""

BOX = (
    '<box label="cat" source="manual" occluded="0" xtl="10.50" ytl="5.00" xbr="30.00" ybr="15.25" '
    'z_order="0"><attribute name="age">young</attribute></box>'
)


def write(folder: Path, *images: tuple[str, str], meta: str = META, places: str = "images") -> Path:
    """A file of images, each its attributes beside the size and its shapes; images of 40 × 60."""
    body = []
    for number, (attributes, shapes) in enumerate(images):
        if "name=" not in attributes:
            name = f"{number}.jpg"
            attributes += f' name="{name}"'
        else:
            name = attributes.split('name="')[1].split('"')[0]
        path = folder / places / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(path if path.suffix else path.with_suffix(".png")),
            np.full((40, 60, 3), 90, np.uint8),
        )
        body.append(f'<image id="{number}" {attributes} width="60" height="40">{shapes}</image>')
    file = folder / "annotations.xml"
    file.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  '
        f"{meta}\n  {''.join(body)}\n</annotations>\n"
    )
    return file


def read(file: Path, **options: str) -> FolderDataset:
    return CvatConfig(images=file.parent / "images", annotations=file, **options).build()


def test_every_shape_has_its_box(tmp_path: Path) -> None:
    shapes = f"""{BOX}
        <box label="dog" occluded="1" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90.0"></box>
        <polygon label="dog" occluded="0" points="1.00,2.00;9.00,4.00;5.00,20.50"></polygon>
        <ellipse label="cat" cx="30" cy="20" rx="10" ry="5"></ellipse>
        <ellipse label="cat" cx="30" cy="20" rx="10" ry="5" rotation="90"></ellipse>
        <mask label="dog" rle="3, 5" left="7" top="8" width="13" height="15"></mask>
        <cuboid label="dog" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="6" ytr1="2" xbr1="6" ybr1="9"
          xtl2="4" ytl2="1" xbl2="4" ybl2="7" xtr2="8" ytr2="1" xbr2="8" ybr2="7"></cuboid>
        <zebra label="unlisted"/>"""
    dataset = read(write(tmp_path, ("", shapes), ("", "")))
    assert dataset.categories.names == ("dog", "cat", "ape")
    boxes = np.array(dataset.targets(0).boxes)
    assert boxes == pytest.approx(
        np.array(
            [
                [10.5, 5, 30, 15.25],
                [25, 5, 35, 25],
                [1, 2, 9, 20.5],
                [20, 15, 40, 25],
                [25, 10, 35, 30],
                [7, 8, 20, 23],
                [1, 1, 8, 9],
            ]
        ),
        abs=1e-5,
    )
    assert dataset.targets(0).labels.tolist() == [1, 0, 0, 1, 1, 0, 0]
    assert dataset.report.num_empty_images == 1
    assert dataset.report.findings == (
        "1 shape without a box is passed over: 1 zebra",
        "1 of the boxes are turned: the upright box around each is taken",
        "1 of 3 categories kept although no annotation uses them (in a config, unused_categories: "
        "drop leaves them out): ape",
    )


def test_what_has_no_box_is_counted(tmp_path: Path) -> None:
    shapes = f"""{BOX}<polyline label="dog" points="1,1;2,2"></polyline>
        <points label="dog" points="1,1;2,2"></points><tag label="good_frame"></tag>
        <skeleton label="body"><points label="1" outside="0" points="5,9"></points></skeleton>
        <box label="cat" outside="1" xtl="1" ytl="1" xbr="3" ybr="3"/>"""
    dataset = read(write(tmp_path, ("", shapes)))
    assert dataset.report.num_boxes == 1
    assert dataset.report.findings[:2] == (
        "4 shapes without a box are passed over: 1 points, 1 polyline, 1 skeleton, 1 tag",
        "1 of the shapes are outside of their image: left out",
    )


def test_a_turned_box_by_45_degrees(tmp_path: Path) -> None:
    turned = '<box label="dog" xtl="20" ytl="10" xbr="30" ybr="20" rotation="45"/>'
    boxes = read(write(tmp_path, ("", turned))).targets(0).boxes
    half = 50**0.5
    assert boxes[0].tolist() == pytest.approx([25 - half, 15 - half, 25 + half, 15 + half])


def test_labels_that_the_task_does_not_list_follow(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, ("", BOX.replace("cat", "猫") + BOX), meta=""))
    assert dataset.categories.names == ("cat", "猫")


def test_subsets_are_splits_and_may_have_folders(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        ('name="a.jpg" subset="Train" task_id="1"', BOX),
        ('name="b.jpg" subset="Validation" task_id="2"', BOX + BOX),
        ('name="c.jpg" subset="default" task_id="3"', BOX),
    )
    (tmp_path / "images" / "Train").mkdir()
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "Train" / "a.jpg")
    for source in (find_source(tmp_path), find_source(file)):
        assert source.describe().endswith("is taken for CVAT for images: train, validation")
        train, validation = (source.splits[name].build() for name in ("train", "validation"))
        assert [Path(train.file_path(0)).name, len(train)] == ["a.jpg", 1]
        assert [Path(validation.file_path(0)).name, len(validation)] == ["b.jpg", 1]
        assert source.splits["train"].display_name == f"{file}, train"
        assert train.table.findings[0] == (
            "1 of the images are in a subset that is called as no split: in none"
        )


def test_frames_of_a_video_have_no_suffix(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, ('name="frame_000000"', BOX), ('name="x/frame_000001"', "")))
    names = [Path(dataset.file_path(index)) for index in range(2)]
    assert names == [tmp_path / "images/frame_000000.png", tmp_path / "images/x/frame_000001.png"]


def test_images_may_lie_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path, ("", BOX), places=".").rename(tmp_path / "task_7.xml")
    source = find_source(tmp_path)
    assert source.whole == CvatConfig(images=tmp_path, annotations=tmp_path / "task_7.xml")
    assert source.whole.build().report.num_boxes == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BOX.replace('"10.50"', '"ten"'), r"image '0\.jpg': shape 1 \(<box>\): lacks numbers"),
        (BOX.replace('label="cat"', ""), "the box has no class"),
        ('<polygon label="dog" points="1;2"/>', "<polygon>.*: lacks numbers of its box"),
        ("<box", "not readable as XML"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, body: str, message: str) -> None:
    file = write(tmp_path, ("", body))
    with pytest.raises(UserError, match=message) as caught:
        read(file)
    assert str(caught.value).startswith(str(file))


def test_a_video_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, ("", BOX))
    file.write_text(
        f'<annotations>{META}<track id="0" label="dog"><box frame="0" outside="0" xtl="1" '
        'ytl="1" xbr="5" ybr="5"/></track></annotations>'
    )
    with pytest.raises(UserError, match="is 'CVAT for video', whose tracks are not read; export"):
        read(file)


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    file = write(tmp_path, ("", BOX))
    text = file.read_text().replace("animals", "&a;")
    entity = '<!DOCTYPE annotations [<!ENTITY a "aaaa">]>'
    file.write_text(text.replace("<annotations>", f"{entity}<annotations>"))
    assert CvatConfig.recognises(file)
    with pytest.raises(UserError, match="holds a DOCTYPE"):
        read(file)


def test_the_command_line(invoke: Invoke, tmp_path: Path) -> None:
    file = write(tmp_path / "set", ("", BOX), ("", BOX + BOX))
    for source in (file, tmp_path / "set"):
        done = invoke("data", "check", source)
        assert done.code == 0, done.err
        assert "is taken for CVAT for images" in done.out
        assert "2 images, 3 boxes" in done.out
        assert "every image can be used" in done.out
