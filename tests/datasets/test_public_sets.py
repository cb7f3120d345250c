"""The public data sets that may stand beside the checkout, with their known quirks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retina.datasets.checking import check_dataset
from retina.datasets.exports.coco import to_coco
from retina.datasets.folder import FolderDataset
from retina.datasets.formats.coco import read_coco_ground_truth
from retina.datasets.statistics import dataset_statistics
from tests.reading import read_coco, read_voc  # type: ignore[import-not-found]


def bccd(shared_data: Path, split: str) -> FolderDataset:
    root = shared_data / "bccd"
    return read_voc(
        root / "JPEGImages", root / "Annotations", split=root / f"ImageSets/Main/{split}.txt"
    )


@pytest.mark.parametrize(
    ("split", "num_images", "num_boxes", "dropped_in"),
    [
        ("train", 205, 2804, "BloodImage_00343.jpg"),
        ("val", 87, 1137, "BloodImage_00338.jpg"),
        ("test", 72, 945, None),
    ],
)
def test_bccd(
    shared_data: Path, split: str, num_images: int, num_boxes: int, dropped_in: str | None
) -> None:
    dataset = bccd(shared_data, split)
    report = dataset.report
    assert (len(dataset), report.num_boxes) == (num_images, num_boxes)
    assert dataset.categories.names == ("Platelets", "RBC", "WBC")
    assert (report.num_crowd, report.num_empty_images) == (0, 0)
    assert len(dataset.ground_truth().areas) == num_boxes + (dropped_in is not None)
    if dropped_in is None:
        assert report.findings == ()
    else:
        assert len(report.findings) == 1
        assert report.findings[0].startswith("1 box without a width or a height: dropped")
        assert dropped_in in report.findings[0]
    assert (dataset.image_sizes == [480, 640]).all()
    name = Path(dataset.file_path(0)).stem
    assert dataset.image_ids[0] == int(name.removeprefix("BloodImage_"))


def test_bccd_as_a_whole(shared_data: Path) -> None:
    root = shared_data / "bccd"
    dataset = read_voc(root / "JPEGImages", root / "Annotations")
    assert len(dataset) == 364
    counts = np.bincount(dataset.ground_truth().category_labels)
    assert counts.tolist() == [361, 4155, 372]
    assert len(to_coco(dataset)["annotations"]) == 4888
    statistics = dataset_statistics(dataset)
    assert statistics.num_boxes == 4886
    assert statistics.imbalance == pytest.approx(4153 / 361)


def test_chess(shared_data: Path) -> None:
    def read(split: str, **options: object) -> FolderDataset:
        folder = shared_data / "chess" / split
        return read_coco(folder, folder / "_annotations.coco.json", **options)

    train = read("train")
    assert (len(train), train.report.num_boxes, len(train.categories)) == (202, 2108, 13)
    assert train.report.findings[0].startswith("the category 'pieces', which Roboflow puts above")
    assert train.report.findings[1].startswith("1 box repeating another one exactly")
    assert len(train.report.findings) == 2
    assert len(read("train", unused_categories="drop").categories) == 13
    texts = [finding.text for finding in check_dataset(train).findings]
    assert texts == [*train.report.findings, "1 class has fewer than 10 boxes: bishop (1)"]
    valid, test = (read(split, categories=train.categories) for split in ("valid", "test"))
    assert (len(valid), valid.report.num_boxes) == (58, 386)
    assert (len(test), test.report.num_boxes, test.report.num_empty_images) == (29, 376, 1)
    assert valid.categories == test.categories == train.categories


@pytest.mark.parametrize(
    ("split", "num_images", "num_boxes", "num_crowd", "num_empty", "num_grey"),
    [("train", 57, 551, 6, 0, 1), ("val", 66, 552, 8, 2, 2)],
)
def test_coco_permissive(
    shared_data: Path,
    split: str,
    num_images: int,
    num_boxes: int,
    num_crowd: int,
    num_empty: int,
    num_grey: int,
) -> None:
    root = shared_data / "coco_permissive"
    path = root / f"annotations/instances_{split}2017.json"
    dataset = read_coco(root / f"{split}2017", path)
    report = dataset.report
    assert (len(dataset), report.num_boxes, report.num_crowd) == (num_images, num_boxes, num_crowd)
    assert report.num_empty_images == num_empty
    assert len(dataset.categories) == 80
    assert dataset.categories.dataset_ids[-1] == 90
    assert not check_dataset(dataset).broken_images
    truth = dataset.ground_truth()
    raw = json.loads(path.read_text())["annotations"]
    assert truth.boxes_xywh.tolist() == [record["bbox"] for record in raw]
    assert truth.areas.tolist() == [record["area"] for record in raw]
    images = [dataset.load(index).image for index in range(len(dataset))]
    assert sum(bool((image == image[..., :1]).all()) for image in images) == num_grey


def test_coco_eval_oracle(shared_data: Path) -> None:
    truth = read_coco_ground_truth(shared_data / "coco_eval_oracle/instances_val2014_100.json")
    assert len(truth.image_ids) == 100
    assert len(truth.annotation_ids) == 839
    assert int(truth.is_crowd.sum()) == 9
