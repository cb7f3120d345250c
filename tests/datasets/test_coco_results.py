from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retina.datasets.coco_results import read_results, write_results
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.structures import Categories, Detections, GroundTruth


@pytest.fixture
def truth() -> GroundTruth:
    return GroundTruth(
        categories=Categories(("dog", "cat"), (18, 5)),
        image_ids=np.array([42, 7]),
        image_sizes=np.array([[100, 100], [100, 100]]),
        annotation_ids=np.array([1]),
        annotation_image_ids=np.array([42]),
        category_labels=np.array([0]),
        boxes_xywh=np.array([[1.0, 2, 3, 4]]),
        areas=np.array([12.0]),
        is_crowd=np.array([False]),
    )


ROW: dict[str, Any] = {"image_id": 42, "category_id": 5, "bbox": [1, 2.5, 3, 4], "score": 0.25}


def test_columns_come_out_with_labels_for_ids(tmp_path: Path, truth: GroundTruth) -> None:
    path = tmp_path / "results.json"
    rle = {"size": [4, 4], "counts": "abc"}
    others = {"image_id": 7.0, "category_id": 18, "bbox": [0, 0, 1, 1], "score": 1}
    path.write_text(json.dumps([ROW, {**others, "segmentation": rle, "file_name": "é.jpg"}]))
    found = read_results(path, truth)
    assert found.image_ids.tolist() == [42, 7]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes_xywh.tolist() == [[1.0, 2.5, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]]
    assert found.scores.tolist() == [0.25, 1.0]


def test_an_empty_list_is_a_result(tmp_path: Path, truth: GroundTruth) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    found = read_results(path, truth)
    assert found.boxes_xywh.shape == (0, 4)
    assert len(found.scores) == len(found.image_ids) == len(found.labels) == 0


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps([ROW])[:40],
            r"no complete JSON .*line 1 column 37.*40 characters\); write it again",
        ),
        ("", "no complete JSON"),
        ("[" * 200_000, "no complete JSON"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (json.dumps({"images": [], "annotations": [ROW]}), "looks like an annotation file"),
        (json.dumps({"results": []}), "one JSON object, not a list of detections; give a JSON"),
        (json.dumps(ROW), "one JSON object, not a list"),
        ("3", "holds no list, not a list"),
        (json.dumps([ROW, 5]), r"detection 1 \(from 0\) is 5, not an object"),
        (json.dumps([ROW, [ROW]]), r"detection 1 \(from 0\) is \[null\], not an object"),
        (json.dumps([ROW, ROW, _without("score")]), r"detection 2 \(from 0\) has no 'score'"),
        (json.dumps([_without("bbox")]), r"detection 0 \(from 0\) has no 'bbox'; a detection is"),
        (json.dumps([{}]), "has no 'image_id' and no 'category_id' and no 'bbox' and no 'score'"),
        (
            json.dumps([ROW, {**ROW, "bbox": [1, 2, 3]}]),
            r"1 .* bbox \[1, 2, 3\], not a list of four",
        ),
        (json.dumps([{**ROW, "bbox": [1, 2, 3, "4"]}]), r'bbox \[1, 2, 3, "4"\], not all numbers'),
        (json.dumps([{**ROW, "bbox": None}]), "bbox null, not a list of four numbers"),
        (json.dumps([{**ROW, "score": "high"}]), 'the score "high", not a number'),
        (json.dumps([{**ROW, "score": 10**400}]), "the score 10000"),
        (json.dumps([{**ROW, "image_id": "42"}]), 'the image_id "42", not an integer'),
        (json.dumps([{**ROW, "image_id": 42.5}]), r"the image_id 42\.5, not an integer"),
        (json.dumps([{**ROW, "category_id": 2**64}]), "the category_id 18446744073709551616, not"),
        (
            json.dumps([ROW, {**ROW, "score": float("nan")}]),
            r"1 \(from 0\) has a box or score that",
        ),
        (json.dumps([ROW, {**ROW, "bbox": [0, 0, 1, float("inf")]}]), "1 .* is not finite"),
        (json.dumps([ROW, {**ROW, "image_id": 9}]), r"1 \(from 0\) is of image_id 9, which"),
        (json.dumps([ROW, {**ROW, "category_id": 0}]), r"category_id 0, .*\(5, 18\).*original"),
        (json.dumps([{**ROW, "inside": ROW}]), "detections inside other detections"),
    ],
)
def test_one_clear_message_for_a_bad_file(
    content: str | bytes, message: str, tmp_path: Path, truth: GroundTruth
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_results(path, truth)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 600 + len(str(path))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, truth: GroundTruth) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        read_results(tmp_path / "none.json", truth)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_results(tmp_path, truth)


def _random_detections(num: int, seed: int) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, 4, generator=generator) * 500
    return Detections(
        boxes=torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1),
        scores=torch.rand(num, generator=generator),
        labels=torch.randint(0, 2, (num,), generator=generator),
    )


def test_what_is_written_scores_the_same_to_the_last_bit(
    tmp_path: Path, truth: GroundTruth
) -> None:
    detections = [_random_detections(50, seed=1), _random_detections(3, seed=2)]
    path = tmp_path / "evaluation" / "detections.json"
    write_results(path, [42, 7], detections, truth.categories)
    found = read_results(path, truth)
    corners = torch.cat([each.boxes for each in detections]).numpy().astype(np.float64)
    assert found.image_ids.tolist() == [42] * 50 + [7] * 3
    assert np.array_equal(found.boxes_xywh[:, :2], corners[:, :2])
    assert np.array_equal(found.boxes_xywh[:, 2:], corners[:, 2:] - corners[:, :2])
    direct, read = CocoMetrics(truth), CocoMetrics(truth)
    direct.update([42, 7], detections)
    read.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    assert direct.compute() == read.compute()
    assert np.array_equal(direct.compute().curves.scores, read.compute().curves.scores)
    assert [item.name for item in path.parent.iterdir()] == ["detections.json"]


def test_rows_have_original_ids_and_file_names(tmp_path: Path, truth: GroundTruth) -> None:
    path = tmp_path / "detections.json"
    found = Detections(torch.tensor([[1.0, 2, 4, 8.5]]), torch.tensor([0.5]), torch.tensor([1]))
    write_results(path, [42], [found], truth.categories, file_names=['a "b".jpg'])
    assert json.loads(path.read_text()) == [
        {
            "image_id": 42,
            "category_id": 5,
            "bbox": [1.0, 2.0, 3.0, 6.5],
            "score": 0.5,
            "file_name": 'a "b".jpg',
        }
    ]


def test_no_detections_are_an_empty_list(tmp_path: Path, truth: GroundTruth) -> None:
    path = tmp_path / "detections.json"
    write_results(path, [42], [_random_detections(0, seed=0)], truth.categories)
    assert json.loads(path.read_text()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, truth: GroundTruth) -> None:
    path = tmp_path / "detections.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="zip"):
        write_results(path, [42, 7], [_random_detections(5, seed=0)], truth.categories)
    assert path.read_text() == "[]"
    assert [item.name for item in tmp_path.iterdir()] == ["detections.json"]


@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_what_is_not_finite_is_not_written(field: str, tmp_path: Path, truth: GroundTruth) -> None:
    found = _random_detections(5, seed=0)
    getattr(found, field)[3] = float("nan")
    with pytest.raises(ValueError, match="image id 42: a box or score that is not finite"):
        write_results(tmp_path / "detections.json", [42], [found], truth.categories)
    assert list(tmp_path.iterdir()) == []
