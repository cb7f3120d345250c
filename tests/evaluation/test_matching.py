"""Matches at one threshold against a plain reference that follows COCO's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation import pairs
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import ScoringProblem, _hotcoco_evaluation
from retina.evaluation.matching import match_detections, within_cap


def hotcocos_entries(problem: ScoringProblem, ious: Sequence[float]) -> list[Any]:
    """What became of every detection, in pycocotools' ``evalImgs`` form: all areas, no cap."""
    evaluation = _hotcoco_evaluation(problem)
    evaluation.params.iou_thrs = list(ious)
    evaluation.params.max_dets = [1000]
    evaluation.params.area_rng = [[0.0, 1e10]]
    evaluation.params.area_rng_lbl = ["all"]
    evaluation.evaluate()
    return [entry for entry in evaluation.eval_imgs if entry is not None]


def make_problem(
    seed: int, *, num_images: int = 12, num_categories: int = 3, per_image: int = 40
) -> ScoringProblem:
    """Random boxes that overlap often, with crowd regions and equal scores."""
    random = np.random.default_rng(seed)
    num_objects, num_detections = num_images * 5, num_images * per_image

    def boxes(count: int) -> np.ndarray:
        corners = random.uniform(0, 60, (count, 2))
        return np.concatenate([corners, random.uniform(10, 50, (count, 2))], axis=1)

    truth = boxes(num_objects)
    truth_images = random.integers(1, num_images + 1, num_objects)
    of = random.integers(0, num_objects, num_detections)
    near = truth[of]
    found = near + random.normal(0, 4, near.shape)
    found[:, 2:] = np.abs(found[:, 2:]) + 1
    return ScoringProblem(
        num_images=num_images,
        num_categories=num_categories,
        truth_images=truth_images,
        truth_categories=random.integers(1, num_categories + 1, num_objects),
        truth_boxes=truth,
        truth_areas=truth[:, 2] * truth[:, 3],
        truth_is_crowd=random.random(num_objects) < 0.15,
        images=truth_images[of],
        categories=random.integers(1, num_categories + 1, num_detections),
        boxes=found,
        scores=random.integers(0, 50, num_detections) / 50,
        max_detections=(1, 10, 100),
    )


def overlap(found: np.ndarray, truth: np.ndarray, *, is_crowd: bool) -> float:
    """IoU; over the detection's own area for a crowd region."""
    low = np.maximum(found[:2], truth[:2])
    high = np.minimum(found[:2] + found[2:], truth[:2] + truth[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    own, other = float(np.prod(found[2:])), float(np.prod(truth[2:]))
    return shared / (own if is_crowd else own + other - shared)


def matched_plainly(problem: ScoringProblem, iou: float) -> tuple[dict[int, int], set[int]]:
    """The object of every true positive, and the detections that are ignored."""
    true: dict[int, int] = {}
    ignored: set[int] = set()
    for row in np.argsort(-problem.scores, kind="stable").tolist():
        same = (problem.truth_images == problem.images[row]) & (
            problem.truth_categories == problem.categories[row]
        )
        free = [
            number
            for number in np.flatnonzero(same & ~problem.truth_is_crowd).tolist()
            if number not in true.values()
        ]
        overlaps = [
            overlap(problem.boxes[row], problem.truth_boxes[number], is_crowd=False)
            for number in free
        ]
        if overlaps and max(overlaps) >= iou:
            true[row] = free[int(np.argmax(overlaps))]
        elif any(
            overlap(problem.boxes[row], problem.truth_boxes[number], is_crowd=True) >= iou
            for number in np.flatnonzero(same & problem.truth_is_crowd)
        ):
            ignored.add(row)
    return true, ignored


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_the_plain_rule(seed: int) -> None:
    problem = make_problem(seed)

    for matching in match_detections(problem, (0.5, 0.75)):
        true, ignored = matched_plainly(problem, matching.iou)
        assert len(true) > 10
        assert np.flatnonzero(matching.is_true).tolist() == sorted(true)
        assert {row: int(matching.annotation[row]) for row in true} == true
        assert set(np.flatnonzero(matching.is_ignored).tolist()) == ignored
        assert {
            int(row): number for number, row in enumerate(matching.detection) if row >= 0
        } == true


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_the_engine(
    seed: int,
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    """With boxes without area, equal boxes and scores, and images without objects."""
    tree = random_tree(seed, num_images=20, num_categories=3, num_objects=150)
    tree["annotations"][5:8] = [
        {**tree["annotations"][4], "id": annotation["id"]}
        for annotation in tree["annotations"][5:8]
    ]
    found = random_detections(seed, tree, per_image=40)
    metrics = CocoMetrics(ground_truth_of(tree))
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    problem = metrics.problem()
    ious = tuple(np.linspace(0.5, 0.95, 10).tolist())
    annotation = np.full((len(ious), len(problem.images)), -1)
    is_ignored = np.zeros_like(annotation, dtype=np.bool_)
    for entry in hotcocos_entries(problem, ious):
        if entry["dtIds"]:
            rows = np.asarray(entry["dtIds"]) - 1
            annotation[:, rows] = np.asarray(entry["dtMatches"]) - 1
            is_ignored[:, rows] = np.asarray(entry["dtIgnore"])

    for row, matching in enumerate(match_detections(problem, ious)):
        assert (matching.annotation == annotation[row]).all()
        assert (matching.is_ignored == is_ignored[row]).all()


def test_more_than_a_hundred_detections_of_an_image_count() -> None:
    problem = make_problem(0, num_images=1, num_categories=1, per_image=250)

    (matching,) = match_detections(problem, (0.5,))

    counted = matching.is_true | matching.is_false | matching.is_ignored
    assert counted.all()
    assert matching.is_false[np.argsort(-problem.scores, kind="stable")[100:]].any()


def test_nothing_is_found_where_nothing_was_detected() -> None:
    problem = make_problem(1, per_image=0)

    (matching,) = match_detections(problem, (0.5,))

    assert len(matching.annotation) == 0
    assert (matching.detection == -1).all()


@pytest.mark.parametrize("seed", range(40))
def test_matches_are_hotcocos_where_overlaps_and_scores_are_equal(seed: int) -> None:
    """Boxes on a grid of 4: many of no area, of negative width, and many the same."""
    random = np.random.default_rng(seed)
    num_objects, num_detections = random.integers(0, 40), random.integers(0, 80)

    def boxes(count: int, least: int) -> np.ndarray:
        corners = random.integers(0, 4, (count, 2))
        return np.hstack([corners, random.integers(least, 5, (count, 2))]).astype(float)

    problem = ScoringProblem(
        num_images=3,
        num_categories=2,
        truth_images=random.integers(1, 4, num_objects),
        truth_categories=random.integers(1, 3, num_objects),
        truth_boxes=boxes(num_objects, 0),
        truth_areas=np.ones(num_objects),
        truth_is_crowd=random.random(num_objects) < 0.2,
        images=random.integers(1, 4, num_detections),
        categories=random.integers(1, 3, num_detections),
        boxes=boxes(num_detections, -1),
        scores=random.integers(0, 5, num_detections) / 5,
        max_detections=(100,),
    )
    ious = (0.1, 0.3, 0.5, 0.75, 1.0)
    annotation = np.full((len(ious), num_detections), -1)
    is_ignored = np.zeros((len(ious), num_detections), dtype=bool)
    for entry in hotcocos_entries(problem, ious):
        if entry["dtIds"]:
            rows = np.array(entry["dtIds"]) - 1
            annotation[:, rows] = np.array(entry["dtMatches"]) - 1
            is_ignored[:, rows] = np.array(entry["dtIgnore"])
    for number, matching in enumerate(match_detections(problem, ious)):
        assert matching.annotation.tolist() == annotation[number].tolist()
        assert matching.is_ignored.tolist() == is_ignored[number].tolist()


def test_the_best_of_each_image_and_class() -> None:
    problem = make_problem(3, num_images=3, num_categories=2, per_image=30)
    kept = within_cap(problem, 4)
    for image in (1, 2, 3):
        for category in (1, 2):
            rows = np.flatnonzero((problem.images == image) & (problem.categories == category))
            best = rows[np.argsort(-problem.scores[rows], kind="stable")][:4]
            own = kept[(problem.images[kept] == image) & (problem.categories[kept] == category)]
            assert own.tolist() == sorted(best.tolist())


def test_blocks_of_pairs_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(5)
    whole = match_detections(problem, (0.5,))[0]
    monkeypatch.setattr(pairs, "_BLOCK_PAIRS", 7)
    parts = match_detections(problem, (0.5,))[0]
    assert parts.annotation.tolist() == whole.annotation.tolist()
