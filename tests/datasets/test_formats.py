"""Formats: what a new one has to give, how one is found, why its files were refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pytest

from retina.configuration import Config, OneOf, validate
from retina.datasets import ConcatenatedConfig, DatasetConfig, VocConfig, find_source, formats
from retina.datasets.formats.coco import CocoConfig
from retina.errors import UserError
from tests.newcomers.lines import LinesConfig  # type: ignore[import-not-found]

Writer = Callable[..., tuple[Path, Path]]


class Splits(Config):
    train: Annotated[DatasetConfig, OneOf(*formats.FORMATS, LinesConfig, default="coco")]


@pytest.fixture
def lines(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((40, 60, 3), 90, np.uint8))
    path = tmp_path / "boxes.lines"
    path.write_text("a.png\nb.png 1 2 31 22 dog\na.png 0 0 60 40 cat\nb.png 5 5 10 10 cat\n")
    return tmp_path, path


def test_a_table_is_all_that_a_format_gives(lines: tuple[Path, Path]) -> None:
    folder, path = lines
    dataset = LinesConfig(images=folder, annotations=path, classes=("dog", "cat")).build()
    assert dataset.categories.names == ("dog", "cat")
    assert dataset.class_counts() == (1, 2)
    assert dataset.image_sizes.tolist() == [[40, 60], [40, 60]]  # from the files
    assert dataset.targets(1).boxes.tolist() == [[1, 2, 31, 22], [5, 5, 10, 10]]
    assert dataset.load(0).size == (40, 60)


def test_a_field_takes_the_formats_that_are_listed(lines: tuple[Path, Path]) -> None:
    folder, path = lines
    tree = {"images": str(folder), "annotations": str(path)}

    def read(**train: Any) -> Any:
        return validate({"train": train}, Splits, source="test").train

    assert isinstance(read(**tree), CocoConfig)
    assert isinstance(read(kind="voc", **tree), VocConfig)
    assert isinstance(read(kind="lines", **tree), LinesConfig)
    assert read(kind="lines", **tree).display_name == str(path)


def test_a_format_is_found_by_its_files(
    lines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = lines
    assert formats.format_of(folder) is VocConfig
    assert formats.format_of(path) is CocoConfig  # which says what is wrong with it
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, LinesConfig))
    assert formats.format_of(path) is LinesConfig
    assert formats.format_of(folder) is VocConfig


def test_a_data_set_is_found_in_the_usual_layout_of_its_format(
    write_coco: Writer, write_voc: Writer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"holds no data set that can be read: annotations\.json"):
        find_source(tmp_path)
    folder, path = write_coco()
    coco = find_source(folder.parent).whole
    assert coco is not None
    assert coco == CocoConfig(images=folder, annotations=path)
    assert coco.split_named("train") is None
    assert coco.split_listed_in(path) is None
    images, annotations = write_voc({"a": [], "b": []})
    source = find_source(tmp_path)
    assert source.describe() == f"{tmp_path} is taken for Pascal VOC"
    voc = source.whole
    assert voc is not None
    assert voc == VocConfig(images=images, annotations=annotations)
    assert voc.split_named("train") is None
    listed = tmp_path / "ImageSets" / "Main" / "train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("b\n")
    train = voc.split_named("train")
    assert train == voc.split_listed_in(listed)
    assert train.display_name == f"{annotations}, {listed}"
    source = find_source(tmp_path)
    assert source.whole is None
    assert source.splits == {"train": train}
    assert source.describe() == f"{tmp_path} is taken for Pascal VOC: train"


def test_coco_finds_category_ids_that_are_off_by_one(write_coco: Writer) -> None:
    def shift(tree: dict[str, Any]) -> None:
        tree["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        for annotation, number in zip(tree["annotations"], (0, 1, 0), strict=True):
            annotation["category_id"] = number

    folder, path = write_coco(shift)
    config = CocoConfig(images=folder, annotations=path)
    cause = config.cause_of_refusal("training")
    assert cause is not None
    assert cause.code == "category_ids_off_by_one"
    assert cause.what.endswith("2 annotations use the unlisted id 0")
    assert cause.fix.startswith("Add +1 to every category_id")
    assert cause.numbers == {"shift": -1, "unknown_annotations": 2}
    sound = CocoConfig(images=folder, annotations=write_coco(name="sound")[1])
    assert sound.cause_of_refusal("training") is None
    both = ConcatenatedConfig(parts=(sound, config))
    assert both.cause_of_refusal("training") == cause
    assert both.display_name == f"{sound.annotations} + {path}"


def test_a_format_that_knows_no_cause_gives_none(lines: tuple[Path, Path]) -> None:
    folder, path = lines
    config = LinesConfig(images=folder, annotations=path)
    assert config.cause_of_refusal("training") is None
