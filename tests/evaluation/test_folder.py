"""What an evaluation folder says about the truth that was scored against."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.datasets import CocoConfig, ConcatenatedConfig, VocConfig
from retina.errors import UserError
from retina.evaluation.folder import (
    joined_config,
    keep_results,
    read_as_scored,
    read_evaluation,
    read_truth_record,
    record_truth,
    truth_sha256,
)
from retina.structures import Categories, GroundTruth

Change = Callable[[GroundTruth], GroundTruth]


@pytest.fixture
def truth(random_tree: Any, ground_truth_of: Any) -> GroundTruth:
    made: GroundTruth = ground_truth_of(
        random_tree(3, num_images=12, num_categories=4, num_objects=40)
    )
    return made


def _first(values: Any, value: Any) -> Any:
    changed = values.copy()
    changed[0] = value
    return changed


def test_the_order_of_a_file_is_no_part_of_the_hash(truth: GroundTruth) -> None:
    rng = np.random.default_rng(0)
    images, rows = (
        rng.permutation(len(truth.image_ids)),
        rng.permutation(len(truth.annotation_ids)),
    )
    labels = np.array([2, 0, 3, 1])  # the new label of each old one
    old = np.argsort(labels)
    shuffled = GroundTruth(
        categories=Categories(
            tuple(truth.categories.names[label] for label in old),
            tuple(truth.categories.dataset_ids[label] for label in old),
        ),
        image_ids=truth.image_ids[images],
        image_sizes=truth.image_sizes[images],
        annotation_ids=truth.annotation_ids[rows] + 1000,
        annotation_image_ids=truth.annotation_image_ids[rows],
        category_labels=labels[truth.category_labels[rows]],
        boxes_xywh=truth.boxes_xywh[rows],
        areas=truth.areas[rows],
        is_crowd=truth.is_crowd[rows],
    )
    assert truth_sha256(shuffled) == truth_sha256(truth)


def test_neither_sizes_nor_the_last_bits_of_a_box_are_part_of_it(truth: GroundTruth) -> None:
    unknown = replace(
        truth,
        image_sizes=np.zeros_like(truth.image_sizes),
        boxes_xywh=truth.boxes_xywh * (1 + 1e-15),
    )
    assert truth_sha256(unknown) == truth_sha256(truth)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: replace(t, boxes_xywh=t.boxes_xywh + 0.01),
        lambda t: replace(t, areas=_first(t.areas, 7.0)),
        lambda t: replace(t, is_crowd=~t.is_crowd),
        lambda t: replace(t, category_labels=_first(t.category_labels, 3)),
        lambda t: replace(
            t, annotation_image_ids=_first(t.annotation_image_ids, int(t.image_ids[-1]))
        ),
        lambda t: replace(
            t, image_ids=np.append(t.image_ids, 999), image_sizes=np.zeros((13, 2), int)
        ),
        lambda t: replace(t, original_image_ids={int(t.image_ids[0]): "frame_1"}),
        lambda t: replace(t, categories=Categories(("a", "b", "c", "d"), (1, 2, 3, 4))),
    ],
)
def test_whatever_a_score_depends_on_is_part_of_it(truth: GroundTruth, change: Change) -> None:
    assert truth_sha256(change(truth)) != truth_sha256(truth)


def test_a_truth_without_objects_has_a_hash(truth: GroundTruth) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    empty = replace(
        truth,
        annotation_ids=nothing,
        annotation_image_ids=nothing,
        category_labels=nothing,
        boxes_xywh=np.zeros((0, 4)),
        areas=np.zeros(0),
        is_crowd=np.zeros(0, dtype=np.bool_),
    )
    fewer = replace(empty, image_ids=nothing, image_sizes=np.zeros((0, 2), dtype=np.int64))
    assert len({truth_sha256(one) for one in (truth, empty, fewer)}) == 3


def test_a_data_set_is_read_again_as_it_was_scored(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By relative paths, of which half the classes were scored, from another folder."""
    monkeypatch.chdir(synthetic_data)
    config = CocoConfig(
        images=Path("validation/images"),
        annotations=Path("validation/annotations.json"),
        cache_images=True,
    )
    every = config.build().categories
    half = Categories(every.names[::2], every.dataset_ids[::2])
    scored = config.build(half, unknown_categories="leave_out").ground_truth()
    record_truth(tmp_path, scored, config)
    monkeypatch.chdir(tmp_path)
    record = read_truth_record(tmp_path / "ground_truth.json")
    assert record is not None
    again = record.build()
    assert again.categories == half
    assert truth_sha256(again.ground_truth()) == record.sha256 == truth_sha256(scored)
    assert record.num_images == 8
    assert record.num_objects == sum(scored.class_counts())
    assert "cache_images" not in (tmp_path / "ground_truth.json").read_text()


def test_several_data_sets_in_one_are_read_again(synthetic_data: Path, tmp_path: Path) -> None:
    parts = tuple(
        CocoConfig(images=folder / "images", annotations=folder / "annotations.json")
        for folder in (synthetic_data / "train", synthetic_data / "validation")
    )
    config = ConcatenatedConfig(parts=parts)
    truth = config.build().ground_truth()
    record_truth(tmp_path, truth, config)
    record = read_truth_record(tmp_path / "ground_truth.json")
    assert record is not None
    assert truth_sha256(record.build().ground_truth()) == truth_sha256(truth)


def test_ids_of_classes_that_a_results_file_has_of_its_own(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """A detector's class that a file lacks has any free id there, which the record says."""
    from retina.evaluation.results_source import find_results, read_found

    parts = tuple(
        CocoConfig(images=folder / "images", annotations=folder / "annotations.json")
        for folder in (synthetic_data / "train", synthetic_data / "validation")
    )
    dataset = joined_config(parts).build()
    truth = dataset.ground_truth()
    names = truth.categories.names
    ids = [Categories(names, tuple(range(at, at + len(names)))) for at in (1, 501)]
    record_truth(tmp_path, truth, joined_config(parts), results_categories=ids)
    (tmp_path / "metrics.json").write_text('{"AP": 0.5}')
    for number, (part, own) in enumerate(zip(parts, ids, strict=True), 1):
        rows = [
            {"image_id": image, "category_id": own.dataset_ids[2], "bbox": [0, 0, 9, 9], "score": 1}
            for image in part.build().ground_truth().image_ids.tolist()
        ]
        (tmp_path / f"detections_{number}.json").write_text(json.dumps(rows))
    found = read_found(find_results(tmp_path), dataset)
    assert found.labels.tolist() == [2] * len(dataset)
    assert found.image_ids.tolist() == truth.image_ids.tolist()


def test_an_evaluation_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"AP50": 1}')
    with pytest.raises(UserError, match="has no AP"):
        read_evaluation(tmp_path)
    (tmp_path / "metrics.json").write_text('{"AP": 0.5, "max_detections": 7}')
    with pytest.raises(UserError, match=r"no detections\.json"):
        read_evaluation(tmp_path)
    (tmp_path / "detections.json").write_text("[]")
    found = read_evaluation(tmp_path)
    assert (found.ap, found.max_detections, found.truth) == (0.5, 7, None)
    (tmp_path / "ground_truth.json").write_text('{"name": "val", "sha256": "abc"}')
    with pytest.raises(UserError, match="sha256"):
        read_evaluation(tmp_path)


def test_a_results_file_is_kept_byte_for_byte(synthetic_data: Path, tmp_path: Path) -> None:
    annotations = synthetic_data / "validation/annotations.json"
    results = tmp_path / "found.json"
    results.write_text("[ ]  ")
    config = CocoConfig(images=annotations.parent / "images", annotations=annotations)
    truth = config.build().ground_truth()
    for _ in range(2):  # the second time into the folder that it lies in
        keep_results(tmp_path / "scored", [results])
        results = tmp_path / "scored/detections.json"
    record_truth(tmp_path / "scored", truth, config)
    assert results.read_text() == "[ ]  "
    record = read_truth_record(tmp_path / "scored/ground_truth.json")
    assert record is not None
    assert record.dataset == config.model_copy()


def test_one_truth_in_two_formats_is_one_truth(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "bccd"
    voc = VocConfig(
        images=folder / "JPEGImages",
        annotations=folder / "Annotations",
        split=folder / "ImageSets/Main/val.txt",
    ).build(check_images=False)
    truth = voc.ground_truth()
    keys = ("image_id", "category_id", "bbox", "iscrowd")
    columns = (
        truth.annotation_image_ids.tolist(),
        (truth.category_labels + 1).tolist(),
        truth.boxes_xywh.tolist(),
        truth.is_crowd.astype(int).tolist(),
    )
    coco = {
        "images": [
            {"id": image, "file_name": Path(voc.file_path(index)).name}
            for index, image in enumerate(truth.image_ids.tolist())
        ],
        "categories": [
            {"id": number, "name": name} for number, name in enumerate(truth.categories.names, 1)
        ],
        "annotations": [
            {"id": number, **dict(zip(keys, row, strict=True))}
            for number, row in enumerate(zip(*columns, strict=True), 1)
        ],
    }
    file = tmp_path / "val.json"
    file.write_text(json.dumps(coco))
    config = CocoConfig(images=folder / "JPEGImages", annotations=file)
    assert truth_sha256(read_as_scored(config, None).ground_truth()) == truth_sha256(truth)
