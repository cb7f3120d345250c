"""CSV files with a row per box: what columns mean, where the images lie, one clear error each.

The files are small ones of the kinds that TensorFlow's scripts, Open Images, keras-retinanet,
SKU-110K, Kaggle's competitions, makesense.ai and AutoML Vision write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retina.datasets import CsvConfig, FolderDataset, SourceConfig, find_source, format_of
from retina.datasets.formats.csv_columns import columns_of
from retina.datasets.formats.image_finding import find_images
from retina.errors import UserError
from tests.conftest import Invoke  # type: ignore[import-not-found]

Write = Callable[..., Path]

TWO = {"a.jpg": [("cat", [6, 4, 24, 16])], "b.jpg": [("dog", [0, 0, 60, 40])]}
"""What most of the files below say of two images of 40 × 60 (height × width)."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files below a folder: images of 40 × 60 where no text is given."""

    def write(files: dict[str, str | bytes | None]) -> Path:
        for name, content in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "set"

    return write


@pytest.fixture
def written(write: Write) -> Callable[[str | bytes], Path]:
    """Writes a CSV file beside ``images/`` with a.jpg and b.jpg."""

    def written(text: str | bytes) -> Path:
        images = {"images/a.jpg": None, "images/b.jpg": None}
        return write({**images, "boxes.csv": text}) / "boxes.csv"

    return written


def read(path: Path, split: str | None = None, **options: Any) -> FolderDataset:
    return SourceConfig(source=path, split=split, **options).build()


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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "filename,width,height,class,xmin,ymin,xmax,ymax\n"
            "a.jpg,60,40,cat,6,4,30,20\nb.jpg,60,40,dog,0,0,60,40\n",
            id="TensorFlow's, whose width and height are the image's",
        ),
        pytest.param(
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
            "IsGroupOf,IsDepiction,IsInside\n"
            "a,xclick,cat,1,0.1,0.5,0.1,0.5,0,0,0,0,0\nb,activemil,dog,1,0,1,0,1,-1,-1,-1,-1,-1\n",
            id="Open Images'",
        ),
        pytest.param("/x/a.jpg,6,4,30,20,cat\n/x/b.jpg,0,0,60,40,dog\n", id="keras-retinanet's"),
        pytest.param("a.jpg,6,4,30,20,cat,60,40\nb.jpg,0,0,60,40,dog,60,40\n", id="SKU-110K's"),
        pytest.param(
            "image_id,class,width,height,bbox,source\n"
            'a,cat,60,40,"[6.0, 4.0, 24.0, 16.0]",x\nb,dog,60,40,"[0, 0, 60, 40]",x\n',
            id="Kaggle's wheat with a class",
        ),
        pytest.param(
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
            "cat,6,4,24,16,a.jpg,60,40\ndog,0,0,60,40,b.jpg,60,40\n",
            id="makesense.ai's",
        ),
        pytest.param("cat,6,4,24,16,a.jpg,60,40\ndog,0,0,60,40,b.jpg,60,40\n", id="without header"),
        pytest.param(
            "Image_Path;Category;X;Y;W;H\nimages\\a.jpg;cat;6,0;4,0;24,0;16,0\n"
            'images\\b.jpg;"dog";0;0;60;40\n',
            id="semicolons and decimal commas",
        ),
        pytest.param(
            "sep=;\r\nfile;name;left;top;right;bottom\r\na.jpg;cat;6;4;30;20\r\n\r\n"
            "b.jpg;dog;0;0;60;40\r\n",
            id="Excel's",
        ),
        pytest.param(
            "img\tlabel\txc\tyc\tw\th\na.jpg\tcat\t18\t12\t24\t16\nb.jpg\tdog\t30\t20\t60\t40\n",
            id="tabs and centres",
        ),
        pytest.param(
            'class,x1,y1,x2,y2,"image id"\ncat,.1,.1,.5,.5,a\ndog,0,0,1,1,b\n', id="fractions"
        ),
        pytest.param(
            "file name,label,x_center,y_center,width,height\n"
            "A.JPG,cat,0.3,0.3,0.4,0.4\nb.png,dog,0.5,0.5,1,1\n",
            id="centres in fractions, and other suffixes",
        ),
        pytest.param(
            "frame,type,xmin,ymin,width,height\na.jpg,cat,6,4,24,16\nb.jpg,dog,0,0,60,40\n",
            id="width and height of the box",
        ),
        pytest.param("a.jpg,cat,6,4,30,20\nb.jpg,dog,0,0,60,40\n", id="class before box"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_are_found(
    written: Callable[[str | bytes], Path], text: str, encoding: str
) -> None:
    path = written(text.encode(encoding))
    assert find_source(path).describe() == f"{path} is taken for CSV"
    dataset = read(path)
    assert boxes_of(dataset) == TWO
    assert dataset.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert dataset.report.findings[1].startswith("read as image ")


def test_what_was_taken_for_what_is_told_and_can_be_overridden(
    written: Callable[[str | bytes], Path],
) -> None:
    path = written('image_id,width,height,bbox\na,60,40,"[1, 2, 30, 20]"\n')  # no class
    dataset = read(path)
    assert boxes_of(dataset) == {"a.jpg": [("object", [1, 2, 30, 20])]}
    assert dataset.report.findings[1] == (
        "read as image 'image_id'; box 'bbox' (corner and sides, in pixels); image size 'width', "
        "'height'; no class: all are called 'object'"
    )
    images = path.parent / "images"
    corners = CsvConfig(images=images, annotations=path, box="xyxy").build()
    assert boxes_of(corners) == {"a.jpg": [("object", [1, 2, 29, 18])]}
    path = written("img,label,x1,y1,x2,y2\na,cat,0,0,1,1\n")
    assert boxes_of(read(path)) == {"a.jpg": [("cat", [0, 0, 60, 40])]}
    pixels = CsvConfig(images=images, annotations=path, unit="pixels").build()
    assert boxes_of(pixels) == {"a.jpg": [("cat", [0, 0, 1, 1])]}
    assert "(two corners, in pixels)" in pixels.report.findings[0]


@pytest.mark.parametrize(
    "empty", [",,,,,", ",,,,", ",NaN,nan,,,", ",,,,,No finding"], ids=["6", "5", "NaN", "class"]
)
def test_rows_without_a_box_are_images_without_objects(
    written: Callable[[str | bytes], Path], empty: str
) -> None:
    for header in ("", "path,x1,y1,x2,y2,class\n"):
        if header or empty == ",,,,,":
            path = written(f"{header}a.jpg{empty}\nb.jpg,0,0,60,40,dog\n")
            assert boxes_of(read(path)) == {"a.jpg": [], "b.jpg": TWO["b.jpg"]}


def test_classes_of_keras_retinanet_have_ids(write: Write) -> None:
    folder = write(
        {
            "train/annotations.csv": "a.jpg,6,4,30,20,dog\na.jpg,0,0,9,9,cat\n",
            "train/classes.csv": "dog,0\ncow,1\ncat,2\n",
            "train/a.jpg": None,
        }
    )
    part = find_source(folder).splits["train"]
    assert part.has_category_ids
    dataset = part.build()
    assert dataset.categories.names == ("dog", "cow", "cat")
    assert dataset.categories.dataset_ids == (0, 1, 2)
    assert dataset.class_counts() == (1, 0, 1)
    for classes in ("name,id\ndog,0\ncow,1\ncat,2\n", "0,dog\n1,cow\n2,cat\n"):
        write({"train/classes.csv": classes, "train/annotations.csv": "a.jpg,6,4,30,20,2\n"})
        assert boxes_of(part.build()) == {"a.jpg": [("cat", [6, 4, 24, 16])]}
    write({"train/annotations.csv": "a.jpg,6,4,30,20,dog\na.jpg,0,0,9,9,cat\n"})
    write({"train/classes.csv": "a.jpg,0\nb.jpg,1\n"})  # another table
    assert not part.has_category_ids
    write({"train/classes.csv": "name,id\ndog,0\n"})
    with pytest.raises(UserError, match=r"line 2: the class 'cat' is not in .*classes\.csv"):
        part.build()
    write({"train/classes.csv": "dog,0\ncat,0\n"})
    with pytest.raises(UserError, match="several classes have one id"):
        part.build()


def test_open_images_with_descriptions_groups_and_splits(write: Write) -> None:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    folder = write(
        {
            "oidv6-train-annotations-bbox.csv": f"{header}0001eeaf,x,/m/01yrx,1,.1,.5,.1,.5,1\n",
            "validation-annotations-bbox.csv": f"{header}0002ab,x,/m/0bt9lr,1,0,1,0,1,0\n",
            "class-descriptions-boxable.csv": '/m/01yrx,Cat\n/m/0bt9lr,Dog\n/m/09j2d,"Suit, x"\n',
            "train-images.csv": "ImageID,Subset,OriginalURL\n0001eeaf,train,x\n",
            "train/0001eeaf.jpg": None,
            "validation/0002ab.jpg": None,
        }
    )
    train = read(folder, "train")
    assert boxes_of(train) == {"0001eeaf.jpg": [("Cat", [6, 4, 24, 16])]}
    assert train.report.num_crowd == 1
    assert boxes_of(read(folder, "val")) == {"0002ab.jpg": [("Dog", [0, 0, 60, 40])]}


ROWS = "filename,width,height,class,xmin,ymin,xmax,ymax\n{}.jpg,60,40,cat,6,4,30,20\n"


@pytest.mark.parametrize(
    "files",
    [
        ["train_labels.csv", "train/a.jpg", "test_labels.csv", "test/b.jpg"],
        ["data/train_labels.csv", "images/a.jpg", "data/test_labels.csv", "images/b.jpg"],
        ["train/_annotations.csv", "train/a.jpg", "test/_annotations.csv", "test/b.jpg"],
        ["train.csv", "images/train/a.jpg", "test.csv", "images/test/b.jpg"],
        ["annotations/train.csv", "train/a.jpg", "annotations/test.csv", "test/b.jpg"],
        ["train.csv", "a.jpg", "test.csv", "b.jpg"],
        ["labels_train.csv", "train/images/a.jpg", "labels-test.csv", "test/images/b.jpg"],
    ],
    ids=" ".join,
)
def test_splits_are_found(write: Write, files: list[str]) -> None:
    train, a, test, b = files
    folder = write({train: ROWS.format("a"), a: None, test: ROWS.format("b"), b: None})
    assert list(find_source(folder).splits) == ["train", "test"]
    assert list(boxes_of(read(folder, "train"))) == ["a.jpg"]
    assert list(boxes_of(read(folder, "test"))) == ["b.jpg"]


def test_a_column_names_the_splits(write: Write) -> None:
    rows = "image,label,xmin,ymin,xmax,ymax,Set\na,cat,6,4,30,20,Train\nb,dog,0,0,60,40,val\n"
    folder = write({"boxes.csv": rows, "images/train/a.jpg": None, "images/val/b.jpg": None})
    for source in (folder, folder / "boxes.csv"):
        assert list(find_source(source).splits) == ["train", "validation"]
        assert boxes_of(read(source, "train")) == {"train/a.jpg": TWO["a.jpg"]}
        assert boxes_of(read(source, "valid")) == {"val/b.jpg": TWO["b.jpg"]}
    whole = CsvConfig(images=folder / "images", annotations=folder / "boxes.csv").build()
    assert list(boxes_of(whole)) == ["train/a.jpg", "val/b.jpg"]


def test_automl_vision_names_splits_without_a_header(write: Write) -> None:
    rows = "TRAIN,gs://x/a.jpg,cat,0.1,0.1,,,0.5,0.5,,\nTEST,gs://x/b.jpg,dog,0,0,,,1,1,,\n"
    folder = write({"boxes.csv": rows, "a.jpg": None, "b.jpg": None})
    assert boxes_of(read(folder, "train")) == {"a.jpg": TWO["a.jpg"]}
    assert boxes_of(read(folder, "test")) == {"b.jpg": TWO["b.jpg"]}


def test_images_are_found_by_a_part_of_their_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "x/b.PNG", "y/c.jpg", "z/c.jpg", "d.jpg", "d.png", "e.jpeg", "f.1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = {
        "a.jpg": "a.jpg",
        "C:\\my photos\\x\\b.PNG": "x/b.PNG",
        "/elsewhere/../c.jpg": "elsewhere/c.jpg",  # two of this name
        "y/c.jpg": "y/c.jpg",
        "d": "d",
        "e.jpg": "e.jpeg",
        "f.1": "f.1.jpg",
        "gone": "gone",
    }
    found, finding = find_images(list(names), tmp_path)
    assert found == list(names.values())
    assert finding == (
        "3 of 8 images are found by a part of their name (the first: 'C:\\my photos\\x\\b.PNG' is "
        "'x/b.PNG')"
    )
    assert find_images(["p/a.jpg", "q/a.jpg"], tmp_path) == (["p/a.jpg", "q/a.jpg"], "")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,cat,x,4,30,20", "line 2: 'x' is no number"),
        ("a,cat,,4,30,20", "line 2: '' is no number"),
        ("a,cat,nan,4,30,20", "line 2: 'nan' is no number"),
        ("a,cat,1", "line 2: has 3 of 6 columns: 'a,cat,1'"),
        (",cat,6,4,30,20", "line 2: names no image"),
        ("a,,6,4,30,20", "line 2: the box has no class"),
        ("a,cat,.1,.1,.2,.2\na,cat,.1,.1,.2,.2\na,cat,5,5,9,9", "line 4: the box [5, 5, 9, 9]"),
        ("a,cat,x,4,30,20\n\nb,cat,6,4,y,20", "2 problems\n  line 2: 'x' is no number\n  line 4"),
        ("gone,cat,6,4,30,20\na,cat,6,4,30,20", "1 of 2 images are not in "),
        ("", "the data set is empty: there is no image"),
    ],
)  # fmt: skip
def test_rows_that_make_no_sense(
    written: Callable[[str | bytes], Path], invoke: Invoke, rows: str, message: str
) -> None:
    path = written(f"image,label,xmin,ymin,xmax,ymax\n{rows}\n")
    images = ("--annotations", path, "--images", path.parent / "images")
    part = CsvConfig(images=path.parent / "images", annotations=path)
    with pytest.raises(UserError) as raised:
        part.build()
    assert message in str(raised.value)
    if "images are not" not in message:
        done = invoke("data", "check", *images)
        assert (done.code, message.partition("\n")[0] in done.err) == (2, True), done.err


def test_sizes_that_contradict_each_other_and_ones_without_sense(
    written: Callable[[str | bytes], Path],
) -> None:
    path = written(ROWS.format("a") + "a.jpg,50,40,cat,1,1,2,2\n")
    with pytest.raises(UserError, match=r"line 3: 'a\.jpg' is 40×50 .* but before 40×60"):
        read(path)
    path = written(ROWS.format("a").replace(",60,40,", ",0,nan,"))
    assert read(path).image_sizes.tolist() == [[40, 60]]


def test_fractions_among_pixels_are_told(written: Callable[[str | bytes], Path]) -> None:
    rows = "a,cat,6,4,30,20\n" * 3 + "b,cat,0.1,0.2,0.5,0.6\n"
    found = read(written(f"image,label,xmin,ymin,xmax,ymax\n{rows}")).report.findings
    assert any(finding.startswith("1 box lies within the first pixel") for finding in found)


@pytest.mark.parametrize(
    ("row", "is_known"),
    [
        ("filename,file_size,file_attributes,region_count,region_shape_attributes", False),  # VIA
        ("image_id,PredictionString", False),
        ("x,y,w,h", False),
        ("image,label", False),
        ("1,2,3,4,5,6", False),
        ("a.jpg,1,2,3,4,5", True),
        ("a,1,2,3,4,cat", True),
        ("a,b,c,d,e,f", False),
        ("patientId,x,y,width,height,Target", True),
    ],
)
def test_other_tables_are_told_apart(tmp_path: Path, row: str, is_known: bool) -> None:
    assert (columns_of(row.split(",")) is not None) == is_known
    path = tmp_path / "x.csv"
    path.write_text(f"{row}\n")
    assert (format_of(path) is CsvConfig) == (not row.startswith("filename,file_size"))
    (tmp_path / "a.jpg").touch()
    assert (CsvConfig.find_in(tmp_path) is not None) == is_known


def test_a_file_that_is_no_table_of_boxes(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "x.csv"
    path.write_text("species,count\nape,2\n")
    done = invoke("data", "check", path)
    assert done.code == 2
    assert "is no CSV file of boxes: no columns are known" in done.err
    assert "name them so in the first line, which is 'species,count'" in done.err


def test_the_raccoons(shared_data: Path) -> None:
    folder = shared_data / "raccoon"
    train, test = read(folder / "data", "train"), read(folder / "data", "test")
    assert (len(train), train.report.num_boxes) == (160, 173)
    assert (len(test), test.report.num_boxes) == (40, 44)
    whole = read(folder / "data" / "raccoon_labels.csv")
    assert (len(whole), whole.report.num_boxes) == (200, 217)
    assert len(whole.report.findings) == 2  # what it is taken for, and what its columns mean


def test_the_commands(write: Write, invoke: Invoke, tmp_path: Path) -> None:
    folder = write({"train_labels.csv": ROWS.format("a"), "train/a.jpg": None})
    file = folder / "train_labels.csv"
    for where in ([folder], [file], ["--annotations", file, "--images", folder / "train"]):
        done = invoke("data", "check", *where)
        assert done.code == 0, done.err
        assert "1 image, 1 box, 0 crowd regions" in done.out
        assert "read as image 'filename'; class 'class'" in done.out
    done = invoke("data", "stats", folder)
    assert (done.code, "cat" in done.out) == (0, True), done.err
    done = invoke("data", "convert", folder, "--output", tmp_path / "out.json")
    assert done.code == 0, done.err
    tree = json.loads((tmp_path / "out.json").read_text())
    assert tree["categories"] == [{"id": 1, "name": "cat"}]
    assert [one["bbox"] for one in tree["annotations"]] == [[6, 4, 24, 16]]
