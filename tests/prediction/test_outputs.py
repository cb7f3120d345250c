"""What `retina predict --save` writes is read back by the project's own readers."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from retina.datasets import find_source
from retina.errors import UserError
from tests.prediction.fixed_runtime import (  # type: ignore[import-not-found]
    TwoObjects,
    predict,
    save_image,
)

SIZES = {"a.png": (31, 53), "deep/b.png": (40, 30), "none.png": (24, 24)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    paths = [save_image(folder / "photos" / name, *size) for name, size in SIZES.items()]
    run = predict(paths, folder / "out", save=("yolo", "voc", "csv", "coco", "crops"))
    assert (run.num_images, run.num_detections, run.failures) == (3, 4, ())
    return folder / "out"


@pytest.mark.parametrize(
    ("name", "tolerance"), [("voc", 0), ("csv", 0), ("coco", 0), ("yolo", 1e-6)]
)
def test_labels_are_read_back(found: Path, name: str, tolerance: float) -> None:
    source = find_source(found / name)
    part = source.whole or source.splits["train"]
    dataset = part.build()
    assert len(dataset) == 3
    truth = dataset.ground_truth()
    expected_names = {"voc": ("a dog", "cat/kitten")}  # VOC has no list of classes
    names = dataset.categories.names
    assert sorted(names) == sorted(expected_names.get(name, TwoObjects.categories.names))
    if name in ("coco", "csv"):
        assert dict(zip(names, dataset.categories.dataset_ids, strict=True)) == {
            "a dog": 17,
            "cat/kitten": 3,
            "cow": 5,
        }
    for index in range(3):
        path = Path(dataset.file_path(index))
        size = next(size for file, size in SIZES.items() if Path(file).name == path.name)
        assert dataset.load(index).size == size
        expected = TwoObjects().in_size(*size)
        own = truth.image_indices == index
        assert [names[label] for label in truth.category_labels[own]] == [
            TwoObjects.categories.names[label] for label in expected.labels
        ]
        corners = truth.boxes_xywh[own].copy()
        corners[:, 2:] += corners[:, :2]
        assert np.abs(corners - expected.boxes.double().numpy()).max(initial=0) <= tolerance
        if hasattr(os, "link"):
            assert path.stat().st_nlink > 1  # no copy of the pixels


def test_csv_has_the_scores_and_a_row_for_an_image_without_objects(found: Path) -> None:
    rows = list(csv.DictReader((found / "csv/annotations.csv").open()))
    scores = TwoObjects().in_size(31, 53).scores.double().tolist()
    assert [row["score"] for row in rows] == [*map(str, scores), *map(str, scores), ""]
    assert [row["filename"] for row in rows] == ["a.png"] * 2 + ["deep/b.png"] * 2 + ["none.png"]


def test_crops_are_the_pixels_of_the_boxes(found: Path) -> None:
    crops = sorted(path.relative_to(found).as_posix() for path in found.glob("crops/*/*"))
    assert crops == [
        "crops/a dog/a_2.jpg",
        "crops/a dog/b_2.jpg",
        "crops/cat_kitten/a_1.jpg",
        "crops/cat_kitten/b_1.jpg",
    ]
    crop = np.asarray(PIL.Image.open(found / "crops/a dog/a_2.jpg"))
    image = np.asarray(PIL.Image.open(found.parent / "photos/a.png"))
    assert crop.shape == (31 - 3, 53 - 19, 3)  # from 0.11 × 31 and 0.37 × 53, rounded down
    assert np.abs(crop.astype(int) - image[3:, 19:]).mean() < 4


def test_nothing_but_what_is_asked_for_is_left(found: Path) -> None:
    assert {path.name for path in found.iterdir()} == {"yolo", "voc", "csv", "coco", "crops"}


def test_a_data_set_that_is_there_is_not_mixed_with(found: Path, tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", 20, 30)
    with pytest.raises(UserError, match=r"holds yolo already, and data sets are not mixed"):
        predict([path], found, save=("json", "yolo"))
    assert not (found / "detections.json").exists()


def test_sources_with_dots_lie_in_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "other/a.png", 31, 53)
    save_image(tmp_path / "here/photos/b.png", 31, 53)
    monkeypatch.chdir(tmp_path / "here")
    predict([Path("photos/b.png"), Path("../other/a.png")], Path("out"), save=("coco", "csv"))
    for name in ("coco", "csv"):
        source = find_source(tmp_path / "here/out" / name)
        dataset = (source.whole or source.splits["train"]).build()
        paths = [Path(dataset.file_path(row)) for row in range(len(dataset))]
        assert all(path.is_file() and ".." not in path.parts for path in paths)
        assert {path.name for path in paths} == {"a.png", "b.png"}
