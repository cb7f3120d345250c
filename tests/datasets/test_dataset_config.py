"""The configs: which keys there are, what they build, how mistakes are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.configuration import Config, ConfigError, parse_yaml, to_yaml, validate
from retina.datasets import (
    AnyDatasetConfig,
    CocoConfig,
    ConcatenatedDataset,
    FolderDataset,
    VocConfig,
)
from retina.structures import Categories

Writer = Callable[..., tuple[Path, Path]]


class Splits(Config):
    train: AnyDatasetConfig


def read(**train: Any) -> Any:
    return validate({"train": train}, Splits, source="test.yaml").train


def test_coco_is_the_kind_that_is_meant_if_none_is_said(write_coco: Writer) -> None:
    folder, path = write_coco()
    config = read(images=str(folder), annotations=str(path))
    assert isinstance(config, CocoConfig)
    assert config == read(kind="coco", images=str(folder), annotations=str(path))
    dataset = config.build(antialias=True)
    assert isinstance(dataset, FolderDataset)
    assert dataset.antialias
    assert dataset.categories.names == ("cat", "dog")


def test_every_key_reaches_the_data_set(write_coco: Writer) -> None:
    folder, path = write_coco()
    config = read(
        images=str(folder),
        annotations=str(path),
        classes=["dog"],
        max_images=1,
        subset_seed=1,
        cache_images=True,
        cache_limit_gb=0.5,
    )
    dataset = config.build()
    assert dataset.categories.names == ("dog",)
    assert len(dataset) == 1
    assert dataset._cache is not None
    half = read(images=str(folder), annotations=str(path), fraction=0.5, unused_categories="drop")
    assert len(half.build()) == 1
    assert half.build()._cache is None
    train = Categories(("dog", "cat"), (9, 2))
    assert read(images=str(folder), annotations=str(path)).build(train).categories == train


def test_voc(write_voc: Writer, tmp_path: Path) -> None:
    images, annotations = write_voc({"a": [("x", (1, 2, 3, 4), 1)], "b": []})
    split = tmp_path / "train.txt"
    split.write_text("a\n")
    config = read(
        kind="voc",
        images=str(images),
        annotations=str(annotations),
        split=str(split),
        one_based=True,
        difficult_as_crowd=False,
    )
    assert isinstance(config, VocConfig)
    dataset = config.build()
    assert isinstance(dataset, FolderDataset)
    assert len(dataset) == 1
    assert dataset.ground_truth().boxes_xywh.tolist() == [[0, 1, 3, 3]]
    assert not dataset.ground_truth().is_crowd[0]


def test_concatenated_parts_take_the_classes_of_the_first(
    write_coco: Writer, write_voc: Writer
) -> None:
    folder, path = write_coco()
    images, annotations = write_voc({"x": [("cat", (1, 2, 3, 4), 0)]})
    config = read(
        kind="concatenated",
        parts=[
            {"images": str(folder), "annotations": str(path)},
            {"kind": "voc", "images": str(images), "annotations": str(annotations)},
        ],
    )
    dataset = config.build()
    assert isinstance(dataset, ConcatenatedDataset)
    assert len(dataset) == 3
    assert dataset.categories.names == ("cat", "dog")
    assert dataset.targets(2).labels.tolist() == [0]


def test_a_config_written_as_yaml_reads_back_equal(tmp_path: Path) -> None:
    part = {"kind": "voc", "images": "a", "annotations": "b", "classes": ["no", "1e3"]}
    config = validate(
        {"train": {"kind": "concatenated", "parts": [part, {"images": "c", "annotations": "d"}]}},
        Splits,
        source="test.yaml",
    )
    again = validate(parse_yaml(to_yaml(config), "again"), Splits, source="again")
    assert again == config


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"images": "a"}, "train.annotations: this key is required"),
        ({"images": "a", "annotations": "b", "klasses": []}, "did you mean 'classes'"),
        ({"images": "a", "annotations": "b", "split": "c"}, "train.split: unknown key"),
        (
            {"images": 3, "annotations": "b"},
            r"train.images: input should be a valid string \(value 3\)",
        ),
        ({"images": "a", "annotations": "b", "fraction": 1.5}, "train.fraction: .*less than or"),
        ({"images": "a", "annotations": "b", "max_images": 0}, "train.max_images: .*greater"),
        ({"images": "a", "annotations": "b", "classes": []}, "train.classes: .*at least 1"),
        (
            {"images": "a", "annotations": "b", "unused_categories": "dropp"},
            "train.unused_categories: 'dropp' is none of 'keep' or 'drop', did you mean 'drop'",
        ),
        (
            {"kind": "cocoa", "images": "a"},
            r"train.kind: 'cocoa' is none of .*, did you mean 'coco'",
        ),
        ({"kind": "voc", "images": "a"}, "train.annotations: this key is required"),
        ({"kind": "concatenated", "parts": []}, "train.parts: .*at least 1"),
        (
            {
                "kind": "concatenated",
                "parts": [{"images": "a", "annotations": "b"}, {"kind": "voc"}],
            },
            "train.parts.1.images: this key is required",
        ),
        (
            {"kind": "concatenated", "parts": [{"images": "a", "annotationz": "b"}]},
            "train.parts.0.annotationz: unknown key, did you mean 'annotations'",
        ),
        ("folder", "train: .*object.*value 'folder'"),
    ],
)
def test_mistakes_are_told_with_their_path(train: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({"train": train}, Splits, source="test.yaml")
