from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.coco_results import DetectionArrays, read_results
from retina.datasets.ids import Ids
from retina.datasets.written_results import ImageResults, write_image_results, write_results
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


@pytest.mark.parametrize(
    ("scores", "fix"),
    [
        ([0.4, 99.7], "has scores from 0.4 to 99.7: .* from 0 to 1: divide them by 100"),
        ([-0.5, 0.5], "has scores from -0.5 to 0.5: .*: map them to 0 … 1"),
        ([0.0, 1.0], None),
    ],
)
def test_scores_that_are_no_shares_are_told(
    scores: list[float], fix: str | None, tmp_path: Path, truth: GroundTruth
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{**ROW, "score": score} for score in scores]))
    found = read_results(path, truth)
    assert found.scores.tolist() == scores  # AP needs their order only
    if fix is None:
        assert found.findings == ()
    else:
        assert re.search(f"results.json {fix}", found.findings[0])


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
            r"not readable as JSON: unterminated string at line 1, column 37 .*of 40\); .*again",
        ),
        ("", "the results file is empty"),
        ("[" * 200_000, "not readable as JSON"),
        (b"\xff\x80", "no text in UTF-8"),
        (json.dumps({"images": [], "annotations": [ROW]}), "looks like an annotation file"),
        (json.dumps({"results": []}), "one JSON object, not a list of detections; give a JSON"),
        (json.dumps(ROW), "one JSON object, not a list"),
        ("3", "holds no list, not a list"),
        (
            json.dumps([ROW, {**ROW, "score": True}]),
            r"detection 1 \(from 0\) has the score true, not a number",
        ),
        (json.dumps([{**ROW, "bbox": [1, 2, True, 4]}]), r"has the bbox .*, not all numbers"),
        (
            json.dumps([ROW, ROW, {**ROW, "bbox": [1, 2, 3, -4]}]),
            r"detection 2 \(from 0\) has a negative width or height; a bbox is \[x, y, width",
        ),
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
        (json.dumps([{**ROW, "image_id": "x"}]), "of image_id x, which the annotations"),
        (json.dumps([{**ROW, "image_id": 42.5}]), r"the image_id 42\.5, which is no id"),
        (
            json.dumps([{**ROW, "category_id": 2**64}]),
            "the category_id 18446744073709551616, which",
        ),
        (
            json.dumps([ROW, {**ROW, "score": float("nan")}]),
            r"1 \(from 0\) has a box or score that",
        ),
        (json.dumps([ROW, {**ROW, "bbox": [0, 0, 1, float("inf")]}]), "1 .* is not finite"),
        (json.dumps([ROW, {**ROW, "image_id": 9}]), r"1 \(from 0\) is of image_id 9, which"),
        (
            json.dumps([ROW, {**ROW, "category_id": 0}]),
            "category_id 0, .* 5, 18; .*original",
        ),
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
    with pytest.raises(UserError, match=r"none\.json: no such results file"):
        read_results(tmp_path / "none.json", truth)
    with pytest.raises(UserError, match="is a folder, not a results file"):
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
    write_image_results(path, [ImageResults(42, found, 'a "b".jpg')], truth.categories)
    assert json.loads(path.read_text()) == [
        {
            "image_id": 42,
            "category_id": 5,
            "bbox": [1.0, 2.0, 3.0, 6.5],
            "score": 0.5,
            "category_name": "cat",
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


def names_of(names: Sequence[str], ids: Sequence[Any]) -> AnnotationTable:
    """The annotations of images of these names and ids, of a dog (18) and a cat (5), both boxed."""
    numbers, _ = Ids.of(ids)
    return AnnotationTable(
        source="annotations.json",
        categories=Categories(("dog", "cat"), (18, 5)),
        image_ids=numbers.numbers,
        file_names=name_array(names),
        image_sizes=np.full((len(names), 2), 100),
        annotation_ids=np.arange(2),
        image_indices=np.zeros(2, dtype=np.int64),
        labels=np.array([0, 1]),
        boxes_xywh=np.array([[1.0, 2, 3, 4]] * 2),
        areas=np.full(2, 12.0),
        is_crowd=np.zeros(2, dtype=bool),
        occluded_fractions=np.full(2, np.nan),
        original_image_ids=numbers.originals,
    )


def read_rows(path: Path, table: AnnotationTable, rows: list[dict[str, Any]]) -> DetectionArrays:
    path.write_text(json.dumps([{**ROW, **row} for row in rows]))
    return read_results(path, table.ground_truth(), table)


def test_a_file_name_says_more_than_a_counted_id(tmp_path: Path) -> None:
    table = names_of(["a.jpg", "sub/b.jpg", "c.jpg"], [42, 1, 3])
    found = read_rows(
        tmp_path / "r.json",
        table,
        [
            {"image_id": 1, "file_name": "/home/me/photos/a.jpg", "category_name": "dog"},
            {"image_id": 2, "file_name": "sub\\b.jpg", "category_name": "cat"},
            {"image_id": 3, "file_name": "./c.jpg"},
            {"image_id": 42},
        ],
    )
    assert found.image_ids.tolist() == [42, 1, 3, 42]
    assert found.labels.tolist() == [0, 1, 1, 1]
    assert found.findings == (
        "the image_id of 2 of 4 detections is not that of the file they name (the first: 1 for "
        "'/home/me/photos/a.jpg'): the names are taken",
        "the category_id of 1 of 4 detections is not that of the class they name (the first: 5 for "
        "'dog'): the names are taken",
    )


def test_of_files_of_one_name_the_folders_decide(tmp_path: Path) -> None:
    table = names_of(["left/a.jpg", "right/a.jpg", "x/b.jpg", "y/b.jpg"], [1, 2, 3, 4])
    path = tmp_path / "r.json"
    rows: list[dict[str, Any]] = [{"image_id": 9, "file_name": "/d/right/a.jpg"}]
    assert read_rows(path, table, rows).image_ids.tolist() == [2]
    found = read_rows(path, table, [{"image_id": 4, "file_name": "b.jpg"}, *rows])
    assert found.image_ids.tolist() == [4, 2]  # the name alone means two: the id decides
    assert found.findings[0].endswith(
        "the names are taken; 1 of 2 detections name a file that several of the annotations could "
        "be (the first: 'b.jpg'): the image_id says which"
    )
    with pytest.raises(UserError, match="is of image_id 9, which the annotations do not have"):
        read_rows(path, table, [{"image_id": 9, "file_name": "b.jpg"}, *rows])


def test_an_id_of_none_of_the_files_of_that_name_is_refused(tmp_path: Path) -> None:
    table = names_of(["c.jpg", "x/b.jpg", "y/b.jpg"], [1, 2, 3])
    counted = [{"image_id": 3, "file_name": "b.jpg"}, {"image_id": 1, "file_name": "b.jpg"}]
    with pytest.raises(UserError, match=r"detection 1 .* could be several .* image_id 1"):
        read_rows(tmp_path / "r.json", table, counted)


@pytest.mark.parametrize("name", ["in/A B.JPG", "in/a%20b.jpg", "IN/a b.Jpg"])
def test_a_file_in_another_spelling_is_that_file(tmp_path: Path, name: str) -> None:
    table = names_of(["c.jpg", "in/a b.jpg"], [1, 2])
    path = tmp_path / "r.json"
    rows: list[dict[str, Any]] = [{"image_id": 1, "file_name": name}]
    assert read_rows(path, table, rows).image_ids.tolist() == [2]
    both = [*rows, {"image_id": 2, "file_name": "in/a b.jpg"}]  # then it is another file
    with pytest.raises(UserError, match="which the annotations do not have"):
        read_rows(path, table, both)


def test_files_that_are_not_annotated_are_refused(tmp_path: Path) -> None:
    table = names_of(["a.jpg", "b.jpg"], [1, 2])
    rows = [{"image_id": 1, "file_name": "a.jpg"}, {"image_id": 2, "file_name": "c.jpg"}]
    with pytest.raises(UserError, match=r"detection 1 .* is of the file 'c.jpg', which the annot"):
        read_rows(tmp_path / "r.json", table, rows)
    rows = [{"image_id": 1, "category_name": "dog"}, {"image_id": 1, "category_name": "cow"}]
    with pytest.raises(UserError, match=r"detection 1 .* is of the class 'cow', which the annot"):
        read_rows(tmp_path / "r.json", table, rows)


def test_names_of_another_kind_leave_the_ids_alone(tmp_path: Path) -> None:
    table = names_of(["a.jpg", "b.jpg"], [1, 2])
    found = read_rows(
        tmp_path / "r.json", table, [{"image_id": 2, "file_name": "0002", "category_name": "C5"}]
    )
    assert (found.image_ids.tolist(), found.labels.tolist(), found.findings) == ([2], [1], ())


@pytest.mark.parametrize("image_id", ["left", "42", 42, 42.0, "42.0"])
def test_results_take_the_ids_that_annotations_take(tmp_path: Path, image_id: Any) -> None:
    table = names_of(["a.jpg", "b.jpg"], ["left", 42])
    expected = 1 if image_id == "left" else 2
    rows = [{"image_id": image_id, "category_id": "5"}]
    assert read_rows(tmp_path / "r.json", table, rows).image_ids.tolist() == [expected]
    for strange in (1, 2, "right"):  # 1 and 2 number the images here, the file does not
        with pytest.raises(UserError, match=f"is of image_id {strange}, which the annotations"):
            read_rows(tmp_path / "r.json", table, [{"image_id": strange}])


def test_an_image_that_was_listed_twice_is_scored_once(tmp_path: Path) -> None:
    table = replace(names_of(["a.jpg"], [1]), image_aliases={7: 1})
    rows = [
        {"image_id": 1, "score": 0.5},
        {"image_id": 7, "score": 0.5},
        {"image_id": 7, "score": 0.25},
    ]
    found = read_rows(tmp_path / "r.json", table, rows)
    assert found.image_ids.tolist() == [1, 1]
    assert found.scores.tolist() == [0.5, 0.25]
    assert found.findings[0].startswith("1 of 3 detections repeat another one of an image")


def test_ids_are_written_as_their_file_has_them(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    categories = Categories(("dog", "cat"), (1, 2), {1: "d", 2: 'c"'})
    found = Detections(torch.tensor([[1.0, 2, 4, 8.5]]), torch.tensor([0.5]), torch.tensor([1]))
    write_results(path, ["left"], [found], categories)
    (row,) = json.loads(path.read_text())
    assert (row["image_id"], row["category_id"]) == ("left", 'c"')


@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_what_is_not_finite_is_not_written(field: str, tmp_path: Path, truth: GroundTruth) -> None:
    found = _random_detections(5, seed=0)
    getattr(found, field)[3] = float("nan")
    with pytest.raises(ValueError, match="image id 42: a box or score that is not finite"):
        write_results(tmp_path / "detections.json", [42], [found], truth.categories)
    assert list(tmp_path.iterdir()) == []
