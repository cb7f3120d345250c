"""A whole report: its JSON, its examples, its sentences, and where there is nothing to say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retina.datasets.coco_results import read_results
from retina.datasets.formats.coco import read_coco_annotations
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.metrics import METRIC_NAMES
from retina.evaluation.report.cell_members import CellMembers
from retina.evaluation.report.confusion import confusion_matrix, find_claims
from retina.evaluation.report.content import Report, ReportSource, build_report
from retina.evaluation.report.gallery import MOST_IMAGES
from retina.evaluation.report.json_form import write_report_json
from retina.evaluation.report.operating_points import count_at_stops
from retina.evaluation.report.overlap import Overlap
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import Categories

BOX = (10.0, 20.0, 30.0, 40.0)
KEYS = {
    *("format_version", "head", "metrics", "confidence", "num_resamples", "verdict", "categories"),
    *("suggested_score", "operating_points", "counts", "confusion", "curves", "tide"),
    *("calibration", "breakdown", "recall", "images", "gallery", "label_errors", "overlap"),
    "speed",
}


def report_of(metrics: CocoMetrics, **options: Any) -> Report:
    options = {"num_resamples": 50, **options}
    return build_report(metrics, metrics.compute(), source=ReportSource("data"), **options)


def as_json(report: Report) -> Any:
    return json.loads(json.dumps(report.to_json(), allow_nan=False))


@pytest.fixture(scope="module")
def oracle_report(oracle_folder: Path) -> Any:
    table = read_coco_annotations(oracle_folder / "instances_val2014_100.json")
    truth = table.ground_truth()
    found = read_results(oracle_folder / "instances_val2014_fakebbox100_results.json", truth, table)
    metrics = CocoMetrics(truth)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return as_json(report_of(metrics))


def test_the_report_of_a_real_results_file(oracle_report: Any) -> None:
    assert set(oracle_report) == KEYS
    assert oracle_report["metrics"]["AP"]["value"] == pytest.approx(0.5045807, abs=1e-7)
    assert oracle_report["head"]["num_objects"] == 830
    assert oracle_report["head"]["num_crowd"] == 9
    for metric in oracle_report["metrics"].values():
        assert metric["low"] < metric["value"] < metric["high"]
    assert oracle_report["calibration"]["temperature"] is None  # the best one would be endless
    points = oracle_report["operating_points"]
    counts = oracle_report["counts"]["0.50"]
    for at, point in enumerate(points):
        assert point["score"] == at / 100
        for key in ("tp", "fp", "fn"):
            assert point[key] == sum(row[at] for row in counts[key])
        assert point["tp"] + point["fn"] == 830


def test_examples_point_at_what_they_say(oracle_report: Any) -> None:
    images, gallery = oracle_report["images"], oracle_report["gallery"]
    names = {one["label"]: one["name"] for one in oracle_report["categories"]}
    score = oracle_report["suggested_score"]
    lists = ("worst_images", "false_alarms", "missed", "badly_placed", "label_errors", "confusions")
    assert all(gallery[key] for key in lists)
    for item in gallery["false_alarms"]:
        found = images[item["image"]]["detections"][item["detection"]]
        assert item["note"].startswith(f"{names[found['label']]} {found['score']:.2f}")
        assert found["score"] >= score
    for item in gallery["missed"]:
        missed = images[item["image"]]["truth"][item["truth"]]
        assert item["note"].startswith(names[missed["label"]])
        assert not missed["is_crowd"]
    for item in gallery["badly_placed"]:
        image = images[item["image"]]
        found, truth = image["detections"][item["detection"]], image["truth"][item["truth"]]
        assert found["label"] == truth["label"]
        assert iou(found["box"], truth["box"]) == pytest.approx(item["iou"], abs=1e-3)
    for cell in gallery["confusions"]:
        assert 1 <= len(cell["items"]) <= 6
        for item in cell["items"]:
            image = images[item["image"]]
            assert (item["truth"] is None) == (cell["truth"] == -1)
            assert (item["detection"] is None) == (cell["detected"] == -1)
            if item["truth"] is not None:
                assert image["truth"][item["truth"]]["label"] == cell["truth"]
            if item["detection"] is not None:
                assert image["detections"][item["detection"]]["label"] == cell["detected"]
    assert len({image["id"] for image in images}) == len(images) <= 120


def test_no_stop_has_a_higher_f1_than_the_best(oracle_report: Any) -> None:
    for label, category in enumerate(oracle_report["categories"]):
        counts = [oracle_report["counts"]["0.50"][key][label] for key in ("tp", "fp", "fn")]
        if category["num_objects"]:
            best = max(2 * tp / (2 * tp + fp + fn) for tp, fp, fn in zip(*counts, strict=True))
            assert best <= category["best_f1"] + 1e-12
    person = oracle_report["categories"][0]
    assert (person["name"], round(person["best_f1"], 3)) == ("person", 0.882)


def test_every_filled_cell_has_an_example(oracle_report: Any) -> None:
    kept = {
        (one["iou"], one["truth"], one["detected"]): [at_stops(item) for item in one["items"]]
        for one in oracle_report["gallery"]["confusions"]
    }
    for iou in ("0.50", "0.75"):
        for cell in oracle_report["confusion"][iou]["cells"]:
            items = kept.pop((iou, cell["truth"], cell["detected"]))
            counted = [sum(stops) for stops in zip(*items, strict=True)]
            if len(items) < 6:  # all that the cell counts anywhere
                assert counted == cell["counts"]
            assert all(
                (shown > 0) == (real > 0)
                for shown, real in zip(counted, cell["counts"], strict=True)
            )
    assert kept == {}


def at_stops(item: Any) -> list[int]:
    """1 at each of the 101 stops where a cell counts an example, else 0."""
    ends = iter(item["stops"])
    runs = list(zip(ends, ends, strict=True))
    return [int(any(first <= stop <= last for first, last in runs)) for stop in range(101)]


@pytest.mark.parametrize("seed", range(3))
def test_the_members_of_a_cell_are_what_it_counts(
    seed: int, random_split: Callable[..., ScoredSplit]
) -> None:
    split = random_split(seed)
    for matching in split.matchings:
        claims = find_claims(split, matching)
        members = CellMembers(split, matching, claims)
        confusion = confusion_matrix(split, count_at_stops(split, matching), claims)
        for cell in confusion.cells:
            rows = members.of(cell.truth, cell.detected)
            pairs = zip(rows.detections.tolist(), rows.annotations.tolist(), strict=True)
            seen = [at_stops({"stops": members.stops(*pair)}) for pair in pairs]
            assert tuple(map(sum, zip(*seen, strict=True))) == cell.counts
            assert [sum(one) for one in seen] == sorted(map(sum, seen), reverse=True)


def test_of_many_images_the_examples_keep_to_those_that_have_room(
    random_metrics: Callable[..., CocoMetrics],
) -> None:
    read = as_json(report_of(random_metrics(0, num_classes=40, num_images=400, per_image=10)))

    assert len(read["images"]) <= MOST_IMAGES == 180
    cells = [cell for matrix in read["confusion"].values() for cell in matrix["cells"]]
    assert len(read["gallery"]["confusions"]) > len(cells) / 2


def iou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared)


def numbers_of(value: Any) -> set[str]:
    """All numbers of a report as they may stand in a sentence."""
    if isinstance(value, dict):
        return set().union(*(numbers_of(one) for one in value.values()), set())
    if isinstance(value, list):
        return set().union(*(numbers_of(one) for one in value), set())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {f"{value:,}", f"{value:.3f}", f"{value:.2f}"}


@pytest.mark.parametrize("seed", range(3))
def test_every_number_of_the_verdict_stands_in_the_report(
    seed: int, random_metrics: Callable[..., CocoMetrics]
) -> None:
    report = as_json(report_of(random_metrics(seed, num_classes=seed + 2)))

    assert len(report["verdict"]) == 3
    known = numbers_of({key: value for key, value in report.items() if key != "verdict"})
    names = {name for one in report["categories"] for name in one["name"].split()}
    for sentence in report["verdict"]:
        text = sentence["text"].replace("AP50", "").replace("AP75", "").replace(" px", "")
        for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text):
            is_size = re.search(rf"(under|over|–) ?{number}|{number} –", text)
            assert number in known or number in names or is_size, sentence


def test_of_equal_scores_the_highest_is_suggested(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    found = [(1, 0, BOX, 0.9)]

    assert as_json(report_of(metrics_by_hand([(1, 0, BOX)], found)))["suggested_score"] == 0.9


def test_a_suggested_score_is_a_stop(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    metrics = metrics_by_hand([(1, 0, BOX)], [(1, 0, BOX, 0.9)])

    assert as_json(report_of(metrics, suggested_score=0.4375))["suggested_score"] == 0.43


def test_an_object_stands_in_one_slice(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    edge = (0.0, 0.0, 30.0, 20.0)  # 3 : 2

    read = as_json(report_of(metrics_by_hand([(1, 0, edge)], [(1, 0, edge, 0.9)])))

    for rows in read["breakdown"].values():
        assert sum(row["num_objects"] for row in rows) == 1


def test_the_verdict_sees_loose_boxes(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    truth = [(image, 0, BOX) for image in range(1, 31)]
    shifted = (BOX[0] + 0.2 * BOX[2], *BOX[1:])  # IoU 0.8 / 1.2
    found = [(image, 0, shifted, 0.9) for image in range(1, 31)]

    read = as_json(report_of(metrics_by_hand(truth, found, num_images=31)))

    assert read["metrics"]["AP75"]["value"] == 0
    assert read["verdict"][1]["text"] == (
        "Loose boxes cost most: objects are found (AP50 1.000), but few boxes fit closely "
        "(AP75 0.000)."
    )
    assert "AP75 is 0.000" in read["verdict"][2]["text"]


@pytest.mark.parametrize("crowds", [[], [0]])
@pytest.mark.parametrize("num_found", [0, 2])
@pytest.mark.parametrize("num_objects", [0, 1])
def test_empty_cases(
    num_objects: int,
    num_found: int,
    crowds: list[int],
    metrics_by_hand: Callable[..., CocoMetrics],
    tmp_path: Path,
) -> None:
    metrics = metrics_by_hand(
        [(1, 0, BOX)] * num_objects,
        [(1, 0, BOX, 0.9), (2, 0, BOX, 0.8)][:num_found],
        num_images=2,
        num_classes=1,
        crowds=crowds,
    )

    report = report_of(metrics)
    write_report_json(tmp_path / "report.json", report.to_json())

    read = json.loads((tmp_path / "report.json").read_text())
    assert set(read) == KEYS
    assert len(read["verdict"]) == 3
    assert len(read["operating_points"]) == 101
    has_objects = num_objects > 0 and not crowds
    assert (read["tide"] is not None) == has_objects
    assert (read["metrics"]["AP"]["value"] is not None) == has_objects
    assert (read["suggested_score"] is not None) == (has_objects and num_found > 0)


def test_an_empty_split(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    read = as_json(report_of(metrics_by_hand([], [], num_images=0)))
    assert read["head"]["num_images"] == 0
    assert read["images"] == []


def test_1203_classes_stay_compact(random_metrics: Callable[..., CocoMetrics]) -> None:
    read = as_json(report_of(random_metrics(0, num_classes=1203, num_images=40)))

    assert len(read["categories"]) == len(read["counts"]["0.50"]["tp"]) == 1203
    kept = read["curves"]["0.50"]["precision_at_recall"]["categories"]
    assert len(kept["labels"]) == len(kept["precision"]) == 50
    assert len(read["confusion"]["0.50"]["cells"]) <= 50


def test_classes_of_one_name_are_told_apart_everywhere(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    far = (300.0, *BOX[1:])
    metrics = metrics_by_hand([(1, 0, BOX), (1, 1, far)], [(1, 1, BOX, 0.9), (1, 0, far, 0.8)])
    truth = metrics.ground_truth
    metrics.ground_truth = replace(truth, categories=Categories(("same", "same"), (20, 10)))

    read = as_json(report_of(metrics))

    assert [one["name"] for one in read["categories"]] == ["same (id 20)", "same (id 10)"]
    notes = {item["note"] for one in read["gallery"]["confusions"] for item in one["items"]}
    assert "same (id 10) 0.90, annotated as same (id 20)" in notes


def test_the_cap_and_the_range_of_the_scores_are_told(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    found = [(1, 0, BOX, 40.0), (1, 0, BOX, -2.0), (1, 1, BOX, 0.5)]
    metrics = metrics_by_hand([(1, 0, BOX)], found)
    metrics.max_detections = 1

    head = as_json(report_of(metrics))["head"]

    assert (head["max_detections"], head["num_beyond_cap"]) == (1, 1)
    assert head["score_range"] == [-2.0, 40.0]
    none = as_json(report_of(metrics_by_hand([(1, 0, BOX)], [])))["head"]
    assert (none["max_detections"], none["num_beyond_cap"]) == (100, 0)
    assert none["score_range"] is None


def test_names_and_score_are_taken_as_given(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    metrics = metrics_by_hand([(1, 0, BOX)], [(1, 1, BOX, 0.9)])

    read = as_json(report_of(metrics, file_names={1: "<b>.jpg"}, suggested_score=0.35))

    assert read["images"][0]["file_name"] == "<b>.jpg"
    assert read["images"][0]["truth"][0]["box"] == [10.0, 20.0, 40.0, 60.0]
    assert read["suggested_score"] == 0.35
    assert list(read["metrics"]) == list(METRIC_NAMES)


def test_images_that_were_trained_on_come_first(
    metrics_by_hand: Callable[..., CocoMetrics],
) -> None:
    metrics = metrics_by_hand([(1, 0, BOX)], [(1, 0, BOX, 0.9)])
    overlap = Overlap(1, 1, 5, 1, ())

    read = as_json(report_of(metrics, overlap=overlap))

    assert read["verdict"][2]["refers_to"] == "overlap"
    assert read["overlap"]["num_images"] == 1
