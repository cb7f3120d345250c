"""hotcoco's TIDE: one hand-made case of each kind, and a plain reference of the paper's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask

from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.matching import match_pairs
from retina.evaluation.report.scored_split import IOUS, ScoredSplit
from retina.evaluation.report.tide import tide_errors

OBJECT = (100.0, 100.0, 100.0, 100.0)
SHIFTED = (150.0, 100.0, 100.0, 100.0)  # IoU 1/3
ELSEWHERE = (400.0, 100.0, 50.0, 50.0)

CASES = {
    "classification": [(1, 1, OBJECT, 0.9)],
    "localisation": [(1, 0, SHIFTED, 0.9)],
    "both": [(1, 0, OBJECT, 0.9), (1, 1, SHIFTED, 0.8)],
    "duplicate": [(1, 0, OBJECT, 0.9), (1, 0, OBJECT, 0.8)],
    "background": [(1, 0, OBJECT, 0.9), (1, 0, ELSEWHERE, 0.95)],
    "missed": [],
}


@pytest.mark.parametrize("kind", CASES)
def test_one_error_of_each_kind(kind: str, metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    tide = tide_errors(ScoredSplit.of(metrics_by_hand([(1, 0, OBJECT)], CASES[kind])))

    assert tide is not None
    counts = {error.kind: error.count for error in tide.errors}
    assert counts == {one: int(one == kind) for one in CASES}
    costs = {error.kind: error.ap_cost for error in tide.errors}
    # A false alarm above the only object halves its AP; an object lost is all of it.
    ap50 = {"both": 1.0, "duplicate": 1.0, "background": 0.5}.get(kind, 0.0)
    assert tide.ap50 == pytest.approx(ap50)
    expected = {"classification": 1.0, "localisation": 1.0, "background": 0.5}.get(kind, 0.0)
    assert costs[kind] == pytest.approx(expected)


def kinds_plainly(split: ScoredSplit) -> tuple[Counter[str], dict[int, tuple[str, int | None]]]:
    """The kind of every false detection, and the object that it is about."""
    problem, matching = split.problem, split.matchings[0]
    counts: Counter[str] = Counter()
    kinds: dict[int, tuple[str, int | None]] = {}
    about: set[int] = set()
    for row in np.flatnonzero(matching.is_false).tolist():
        objects = np.flatnonzero(
            split.is_object & (problem.truth_images == problem.images[row])
        ).tolist()
        ious = np.zeros(len(objects))
        if objects:
            ious = mask.iou(problem.boxes[[row]], problem.truth_boxes[objects], [0] * len(objects))[
                0
            ]
        is_own = split.truth_labels[objects] == split.labels[row]
        own, other = ious * is_own, ious * ~is_own
        kind, number = "both", None
        if own.max(initial=0) >= 0.1 and own.max(initial=0) < 0.5:
            kind, number = "localisation", objects[int(np.argmax(own))]
        elif other.max(initial=0) >= 0.5:
            kind, number = "classification", objects[int(np.argmax(other))]
        elif own.max(initial=0) >= 0.5:
            kind = "duplicate"
        elif ious.max(initial=0) < 0.1:
            kind = "background"
        counts[kind] += 1
        kinds[row] = kind, number
        if number is not None:
            about.add(number)
    is_found = matching.detection >= 0
    counts["missed"] = sum(
        number not in about for number in np.flatnonzero(split.is_object & ~is_found).tolist()
    )
    return counts, kinds


def ap50_plainly(rows: list[tuple[float, int, bool]], objects: Counter[int]) -> float:
    """The mean over the classes that have objects of scores, labels and whether they are right."""
    values = []
    for label, count in objects.items():
        if count == 0:
            continue
        right = [
            is_true for _, one, is_true in sorted(rows, key=lambda row: -row[0]) if one == label
        ]
        true = np.cumsum(right)
        precision = true / np.arange(1, len(right) + 1)
        levels = [precision[true >= level * count - 1e-9] for level in np.arange(101) / 100]
        values.append(np.mean([max(one, default=0.0) for one in levels]))
    return float(np.mean(values)) if values else 0.0


def costs_plainly(split: ScoredSplit) -> dict[str, float]:
    """AP50 when all errors of a kind are mended, less AP50."""
    problem, matching = split.problem, split.matchings[0]
    _, kinds = kinds_plainly(split)
    objects = Counter(split.truth_labels[split.is_object].tolist())
    best: dict[int, int] = {}
    for row in sorted(kinds, key=lambda row: -problem.scores[row]):
        number = kinds[row][1]
        if number is not None and matching.detection[number] < 0:
            best.setdefault(number, row)
    costs = {}
    for kind in ("nothing", *CASES):
        rows = []
        for row in np.flatnonzero(~matching.is_ignored).tolist():
            label, score = int(split.labels[row]), float(problem.scores[row])
            if row not in kinds or kinds[row][0] != kind:
                rows.append((score, label, row not in kinds))
            elif best.get(kinds[row][1]) == row:  # type: ignore[arg-type]
                rows.append((score, int(split.truth_labels[kinds[row][1]]), True))
        left = objects.copy()
        if kind == "missed":
            for number in np.flatnonzero(split.is_object & (matching.detection < 0)).tolist():
                left[int(split.truth_labels[number])] -= number not in best
        costs[kind] = ap50_plainly(rows, left)
    return {kind: costs[kind] - costs["nothing"] for kind in CASES}


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_costs_are_those_of_the_plain_rule(
    seed: int, random_metrics: Callable[..., CocoMetrics]
) -> None:
    metrics = random_metrics(seed)
    split = ScoredSplit.of(metrics)
    scores = split.problem.scores
    # No ties: which of two equal scores comes first is not TIDE's business.
    scores += np.random.default_rng(seed).uniform(0, 1e-4, len(scores))
    split = replace(split, matchings=match_pairs(split.problem, split.pairs, IOUS))

    tide = tide_errors(split)

    assert tide is not None
    assert tide.ap50 == pytest.approx(metrics_after(metrics, scores), abs=1e-12)
    counts, _ = kinds_plainly(split)
    assert {error.kind: error.count for error in tide.errors} == {
        kind: counts[kind] for kind in CASES
    }
    expected = costs_plainly(split)
    for error in tide.errors:
        assert error.ap_cost == pytest.approx(max(0.0, expected[error.kind]), abs=1e-9), error.kind


def metrics_after(metrics: CocoMetrics, scores: np.ndarray) -> float:
    """AP50 with other scores."""
    problem = metrics.problem()
    again = CocoMetrics(metrics.ground_truth)
    ids = np.sort(metrics.ground_truth.image_ids)
    labels = ScoredSplit.of(metrics).labels
    again.update_arrays(ids[problem.images - 1], problem.boxes, scores, labels)
    return again.compute().AP50


def test_nothing_is_said_without_objects(metrics_by_hand: Callable[..., CocoMetrics]) -> None:
    assert tide_errors(ScoredSplit.of(metrics_by_hand([], [(1, 0, OBJECT, 0.5)]))) is None
