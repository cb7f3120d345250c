from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from retina.datasets.coco_results import DetectionArrays, read_results
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import Backend
from retina.evaluation.matching import match_detections
from retina.evaluation.metrics import METRIC_NAMES, DetectionMetrics
from retina.structures import Categories, Detections, GroundTruth

BACKENDS = get_args(Backend)
ORACLE_NUMBERS = (
    *(0.5045807, 0.6969727, 0.5729817, 0.5856257, 0.5193997, 0.5013979),
    *(0.3868128, 0.5936796, 0.5953530, 0.6398110, 0.5664206, 0.5642906),
)


def _score(
    truth: GroundTruth, found: DetectionArrays, backend: Backend, max_detections: int = 100
) -> DetectionMetrics:
    metrics = CocoMetrics(truth, backend=backend, max_detections=max_detections)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics.compute()


def _assert_same(one: DetectionMetrics, other: DetectionMetrics) -> None:
    """Equal to the last bit, curves included."""
    assert one == other
    assert np.array_equal(one.curves.precision, other.curves.precision)
    assert np.array_equal(one.curves.recall, other.curves.recall)
    assert np.array_equal(one.curves.scores, other.curves.scores)


def _small_truth(**changes: Any) -> GroundTruth:
    """Two images; image 7 has two objects of class a and a crowd, image 3 one object of class b."""
    columns: dict[str, Any] = {
        "categories": Categories(("a", "b"), (5, 2)),
        "image_ids": np.array([7, 3]),
        "image_sizes": np.array([[100, 100], [100, 100]]),
        "annotation_ids": np.array([0, 1, 2, 3]),
        "annotation_image_ids": np.array([7, 7, 7, 3]),
        "category_labels": np.array([0, 0, 0, 1]),
        "boxes_xywh": np.array(
            [[10.0, 10, 20, 20], [50, 50, 40, 40], [0, 60, 30, 30], [5, 5, 50, 50]]
        ),
        "areas": np.array([400.0, 1600, 900, 2500]),
        "is_crowd": np.array([False, False, True, False]),
    }
    return GroundTruth(**{**columns, **changes})


def _nothing() -> DetectionArrays:
    return DetectionArrays(
        np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_oracle_gives_its_twelve_published_numbers(
    oracle: GroundTruth, oracle_folder: Path, backend: Backend
) -> None:
    found = read_results(oracle_folder / "instances_val2014_fakebbox100_results.json", oracle)
    metrics = _score(oracle, found, backend)
    assert list(metrics.numbers()) == list(METRIC_NAMES)
    np.testing.assert_allclose(list(metrics.numbers().values()), ORACLE_NUMBERS, rtol=0, atol=6e-8)


def test_both_engines_agree_to_the_last_bit_on_the_oracle(
    oracle: GroundTruth, oracle_folder: Path
) -> None:
    found = read_results(oracle_folder / "instances_val2014_fakebbox100_results.json", oracle)
    _assert_same(_score(oracle, found, "hotcoco"), _score(oracle, found, "pycocotools"))


@pytest.mark.parametrize("seed", range(6))
def test_both_engines_equal_pycocotools_own_summary(
    seed: int, ground_truth_of: Any, random_tree: Any, random_detections: Any, judge: Any
) -> None:
    tree = random_tree(seed, num_images=15, num_categories=4, num_objects=60)
    found = random_detections(seed + 100, tree, per_image=12)
    expected = judge(tree, found)
    for backend in BACKENDS:
        metrics = _score(ground_truth_of(tree), found, backend)
        assert list(metrics.numbers().values()) == expected.stats.tolist()  # bit for bit
        order = np.argsort([row["id"] for row in tree["categories"]])
        assert np.array_equal(metrics.curves.precision[:, :, order], expected.eval["precision"])
        assert np.array_equal(metrics.curves.scores[:, :, order], expected.eval["scores"])
        for position, label in enumerate(order):  # -1 becomes None
            values = expected.eval["precision"][:, :, position, 0, 2]
            ap = metrics.per_category[label].AP
            assert (-1.0 if ap is None else ap) == pytest.approx(values.mean(), abs=1e-12)
    assert 0.1 < expected.stats[0] < 0.9


def test_more_than_a_hundred_detections_count_up_to_the_cap(
    ground_truth_of: Any, random_tree: Any, random_detections: Any
) -> None:
    tree = random_tree(1, num_images=3, num_categories=2, num_objects=300)
    truth, found = ground_truth_of(tree), random_detections(2, tree, per_image=400)
    at_100, at_300 = (_score(truth, found, "hotcoco", cap) for cap in (100, 300))
    _assert_same(at_300, _score(truth, found, "pycocotools", 300))
    assert at_300.curves.max_detections == (1, 10, 300)
    assert at_300.AR10 == at_100.AR10
    assert at_300.AR100 > at_100.AR100 > at_300.AR10
    assert min(at_300.numbers().values()) > 0  # pycocotools' own summary says -1 here


@pytest.mark.parametrize(("cap", "caps"), [(1, (1,)), (5, (1, 5)), (10, (1, 10))])
def test_low_caps_stand_for_the_higher_ones_too(
    cap: int, caps: tuple[int, ...], ground_truth_of: Any, random_tree: Any, random_detections: Any
) -> None:
    tree = random_tree(3, num_images=6, num_categories=2, num_objects=60)
    truth, found = ground_truth_of(tree), random_detections(4, tree, per_image=40)
    metrics = _score(truth, found, "hotcoco", cap)
    _assert_same(metrics, _score(truth, found, "pycocotools", cap))
    assert metrics.curves.max_detections == caps
    assert metrics.AR10 == metrics.AR100
    assert metrics.AR1 == _score(truth, found, "hotcoco").AR1


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_score_zero_where_there_is_truth(backend: Backend) -> None:
    numbers = _score(_small_truth(), _nothing(), backend).numbers()
    assert numbers.pop("APl") == numbers.pop("ARl") == -1.0  # no large object in the truth
    assert set(numbers.values()) == {0.0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_truth_scores_minus_one_and_categories_score_nothing(backend: Backend) -> None:
    truth = _small_truth(
        annotation_ids=np.zeros(0, np.int64),
        annotation_image_ids=np.zeros(0, np.int64),
        category_labels=np.zeros(0, np.int64),
        boxes_xywh=np.zeros((0, 4)),
        areas=np.zeros(0),
        is_crowd=np.zeros(0, np.bool_),
    )
    found = DetectionArrays(
        np.array([7]), np.array([[1.0, 1, 5, 5]]), np.array([0.5]), np.array([1])
    )
    metrics = _score(truth, found, backend)
    assert set(metrics.numbers().values()) == {-1.0}
    assert metrics.per_category[1].AP is None
    assert metrics.per_category[1].best_f1 is None
    assert metrics.per_category[1].num_ground_truth == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_truth_as_detections_scores_exactly_one(backend: Backend) -> None:
    truth = _small_truth(
        category_labels=np.array([0, 0, 0, 0]), categories=Categories(("a", "b"), (5, 2))
    )
    objects = ~truth.is_crowd
    found = DetectionArrays(
        truth.annotation_image_ids[objects],
        truth.boxes_xywh[objects],
        np.ones(3),
        truth.category_labels[objects],
    )
    metrics = _score(truth, found, backend)
    # Annotation id 0 counts as matched; pycocotools fed with that id would lose it.
    assert metrics.AP == metrics.AP50 == metrics.AR100 == metrics.APm == metrics.ARs == 1.0
    assert metrics.per_category[0].AP == 1.0
    assert metrics.per_category[1].AP is None
    # One single object: pycocotools divides by 1 + 2.2e-16.
    assert metrics.APs == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_real_truth_as_detections_scores_one(oracle: GroundTruth, backend: Backend) -> None:
    metrics = CocoMetrics(oracle, backend=backend)
    for image_id in oracle.image_ids:
        own = (oracle.annotation_image_ids == image_id) & ~oracle.is_crowd
        x, y, width, height = torch.from_numpy(oracle.boxes_xywh[own]).float().unbind(1)
        metrics.update(
            [int(image_id)],
            [
                Detections(
                    boxes=torch.stack([x, y, x + width, y + height], dim=1),
                    scores=torch.ones(int(own.sum())),
                    labels=torch.from_numpy(oracle.category_labels[own]),
                )
            ],
        )
    numbers = metrics.compute().numbers()
    del numbers["AR1"], numbers["AR10"]
    np.testing.assert_allclose(list(numbers.values()), 1.0, rtol=0, atol=1e-15)


def test_sizes_are_split_by_the_annotated_area_not_the_box() -> None:
    truth = _small_truth(areas=np.array([5000.0, 100, 900, 100]))
    found = DetectionArrays(
        np.array([7]), np.array([[10.0, 10, 20, 20]]), np.array([0.9]), np.array([0])
    )
    metrics = _score(truth, found, "hotcoco")
    assert metrics.ARm == 1.0  # the box has 400 pixels, its mask is said to have 5000
    assert metrics.ARs == 0.0


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong() -> None:
    boxes = np.array([[10.0, 10, 20, 20], [2, 62, 10, 10], [50, 50, 40, 40]])
    scores = np.array([0.9, 0.8, 0.7])
    with_crowd = DetectionArrays(np.full(3, 7), boxes, scores, np.zeros(3, int))
    without = DetectionArrays(np.full(2, 7), boxes[::2], scores[::2], np.zeros(2, int))
    one, other = (_score(_small_truth(), found, "hotcoco") for found in (with_crowd, without))
    assert one.numbers() == other.numbers()
    assert one.per_category[0].AP == 1.0
    assert one.per_category[0].num_ground_truth == 2


def test_update_takes_corners_and_differences_in_float64() -> None:
    truth = _small_truth()
    corners = torch.tensor([[10.1, 10.1, 30.3, 30.3], [50.7, 50.7, 90.1, 90.1]])
    given = CocoMetrics(truth)
    given.update(
        [7, 3],
        [
            Detections(corners, torch.tensor([0.3, 0.7]), torch.tensor([0, 0])),
            Detections(corners[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
        ],
    )
    exact = corners.numpy().astype(np.float64)
    rows = DetectionArrays(
        np.array([7, 7]),
        np.hstack([exact[:, :2], exact[:, 2:] - exact[:, :2]]),
        np.array([0.3, 0.7], dtype=np.float32).astype(np.float64),
        np.array([0, 0]),
    )
    _assert_same(given.compute(), _score(truth, rows, "hotcoco"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_that_float64_cannot_hold_and_negative_ids(backend: Backend) -> None:
    big = 2**60
    truth = _small_truth(
        image_ids=np.array([big + 1, -big]),
        annotation_image_ids=np.array([big + 1, big + 1, big + 1, -big]),
        categories=Categories(("a", "b"), (-4, big + 3)),
    )
    found = DetectionArrays(
        np.array([big + 1, -big]),
        np.array([[10.0, 10, 20, 20], [5, 5, 50, 50]]),
        np.array([0.5, 0.5]),
        np.array([0, 1]),
    )
    metrics = _score(truth, found, backend)
    assert metrics.per_category[0].AR100 == 0.5
    assert metrics.per_category[1].AR100 == 1.0
    assert metrics.per_category[1].dataset_id == big + 3


def test_best_f1_is_that_of_counts_not_of_101_recalls(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], GroundTruth],
) -> None:
    tree = random_tree(5, num_images=15, num_categories=3, num_objects=130)
    truth, found = ground_truth_of(tree), random_detections(5, tree, per_image=25)
    metrics = CocoMetrics(truth, max_detections=2)  # of AP: F1 counts all that is shown
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    (matching,) = match_detections(metrics.problem(), (0.5,))
    for label, category in enumerate(metrics.compute().per_category):
        best = max(
            (
                2
                * (matching.is_true & shown).sum()
                / ((~matching.is_ignored & shown).sum() + category.num_ground_truth),
                score,
            )
            for score in found.scores.tolist()
            for shown in [(found.labels == label) & (found.scores >= score)]
            if shown.any()
        )
        if category.num_ground_truth:
            assert category.best_f1 == pytest.approx(best[0])
            assert category.best_f1_score == (best[1] if best[0] else None)
        else:
            assert (category.best_f1, category.best_f1_score) == (None, None)


def test_best_f1_of_a_class_that_is_never_found() -> None:
    found = DetectionArrays(
        np.array([7]), np.array([[300.0, 300, 5, 5]]), np.array([0.9]), np.array([0])
    )
    category = _score(_small_truth(), found, "hotcoco").per_category[0]
    assert (category.best_f1, category.best_f1_score) == (0.0, None)


def test_best_f1_names_the_score_that_separates_right_from_wrong() -> None:
    found = DetectionArrays(
        np.array([7, 7, 7]),
        np.array([[10.0, 10, 20, 20], [50, 50, 40, 40], [70, 5, 20, 20]]),
        np.array([0.9, 0.6, 0.4]),
        np.array([0, 0, 0]),
    )
    metrics = _score(_small_truth(), found, "hotcoco")
    assert metrics.per_category[0].best_f1 == 1.0
    assert metrics.per_category[0].best_f1_score == 0.6
    np.testing.assert_array_equal(metrics.curves.curve(0, iou=0.75), np.ones(101))
    with pytest.raises(ValueError, match=r"IoU 0\.51"):
        metrics.curves.curve(0, iou=0.51)


def test_pycocotools_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    _score(_small_truth(), _nothing(), "pycocotools")
    assert capfd.readouterr() == ("", "")


def test_numbers_are_plain_json_and_absent_is_null() -> None:
    tree = _score(_small_truth(), _nothing(), "hotcoco").to_json()
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert tree["APl"] == -1.0
    assert tree["per_category"][0]["APl"] is None
    assert tree["per_category"][1]["name"] == "b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": [8]}, "image id 8, which the ground truth does not have"),
        ({"labels": [2]}, "image id 7: label 2, but the ground truth has 2 categories"),
        ({"scores": [float("nan")]}, "image id 7: a detection that is not finite"),
        ({"boxes_xywh": [[0.0, 0, np.inf, 1]]}, "image id 7: a detection that is not finite"),
    ],
)
def test_impossible_detections_are_refused(changes: dict[str, Any], message: str) -> None:
    columns: dict[str, Any] = {
        "image_ids": [7],
        "boxes_xywh": [[0.0, 0, 1, 1]],
        "scores": [0.5],
        "labels": [0],
    }
    columns.update(changes)
    arrays = {name: np.array(values) for name, values in columns.items()}
    with pytest.raises(ValueError, match=message):
        CocoMetrics(_small_truth()).update_arrays(**arrays)


def test_an_image_given_twice_is_refused() -> None:
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    metrics = CocoMetrics(_small_truth())
    metrics.update([7], [empty])
    with pytest.raises(ValueError, match="image id 7 was given twice"):
        metrics.update([3, 7], [empty, empty])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_detections": 0}, "max_detections must be at least 1, is 0"),
        ({"backend": "coco"}, "unknown backend 'coco'"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoMetrics(_small_truth(), **arguments)


_RANK_PROGRAM = """
import json, sys
import numpy as np, torch
from retina.distributed import process_group, rank
from retina.evaluation.coco_metrics import CocoMetrics
from retina.structures import Categories, Detections, GroundTruth

with open(sys.argv[1], "rb") as file:
    columns = dict(np.load(file))
truth = GroundTruth(categories=Categories(("a", "b"), (5, 2)), **columns)
right = Detections(torch.tensor([[10.0, 10, 30, 30]]), torch.ones(1), torch.tensor([0]))
wrong = Detections(torch.tensor([[0.0, 0, 3, 3]]), torch.ones(1), torch.tensor([1]))
with process_group("cpu"):
    metrics = CocoMetrics(truth)
    if rank() == 0:
        metrics.update([7], [right])
    else:  # this rank's sampler padded with an image that rank 0 has, too
        metrics.update([3, 7], [wrong, right])
    print(json.dumps(metrics.compute().to_json()))
"""


def test_ranks_are_brought_together_and_each_image_counts_once(tmp_path: Path) -> None:
    truth = _small_truth()
    columns = {f.name: getattr(truth, f.name) for f in fields(truth) if f.type.endswith("Array")}
    np.savez(tmp_path / "truth.npz", **columns)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK_PROGRAM, str(tmp_path / "truth.npz")],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    by_rank = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    found = DetectionArrays(
        np.array([7, 3]),
        np.array([[10.0, 10, 20, 20], [0, 0, 3, 3]]),
        np.ones(2),
        np.array([0, 1]),
    )
    expected = _score(truth, found, "hotcoco").to_json()
    assert by_rank == [expected, expected]
    assert expected["AR100"] == 0.25
