"""The numbers of single images: those of a set that holds one image alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.matching import match_detections
from retina.evaluation.per_image import ImageScores
from retina.evaluation.scored_images import ScoredImages
from retina.evaluation.scoring import ScoringOptions, score
from retina.structures import Categories, GroundTruth


def whole(truth: GroundTruth) -> ScoredImages:
    count = len(truth.image_ids)
    return ScoredImages(
        truth=truth,
        ids=tuple(truth.image_ids.tolist()),
        file_names=tuple(f"{number}.jpg" for number in truth.image_ids.tolist()),
        sources=("all.json",),
        source_of=np.zeros(count, dtype=np.int64),
    )


def of_images(truth: GroundTruth, found: DetectionArrays) -> ImageScores:
    scores = score(whole(truth), found, ScoringOptions(per_image=True)).per_image
    assert scores is not None
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_each_image_is_what_it_is_alone(
    seed: int,
    random_tree: Callable[..., Any],
    random_detections: Callable[..., Any],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    """With crowd regions, equal scores, images without objects or detections, ids in no order."""
    tree = random_tree(seed, num_images=15, num_categories=3, num_objects=70)
    truth, found = ground_truth_of(tree), random_detections(seed, tree, per_image=25)
    scores = of_images(truth, found)
    assert [one.image_id for one in scores.images] == sorted(truth.image_ids.tolist())
    assert scores.score_threshold is not None
    for one in scores.images:
        row = np.flatnonzero(truth.image_ids == one.image_id)
        assert one.file_name == f"{one.image_id}.jpg"
        alone = CocoMetrics(truth.take_images(row))
        own = found.image_ids == one.image_id
        alone.update_arrays(
            found.image_ids[own], found.boxes_xywh[own], found.scores[own], found.labels[own]
        )
        ap = alone.compute().AP
        assert (None if ap < 0 else pytest.approx(ap, abs=1e-12)) == one.AP
        (matching,) = match_detections(alone.problem(), (0.5,))
        counts = {
            at: (
                int((matching.is_true & (found.scores[own] >= at)).sum()),
                int((matching.is_false & (found.scores[own] >= at)).sum()),
            )
            for at in [scores.score_threshold, *found.scores[own].tolist()]
        }
        assert (one.tp, one.fp) == counts[scores.score_threshold]
        objects = (truth.annotation_image_ids == one.image_id) & ~truth.is_crowd
        assert one.tp + one.fn == one.num_objects == int(objects.sum())
        assert one.num_detections == int(own.sum())
        best = max((f1(*pair, one.num_objects), at) for at, pair in counts.items())
        if one.num_objects:
            assert one.best_f1 == pytest.approx(best[0])
            assert one.best_f1_score == (best[1] if best[0] else None)
        else:
            assert one.best_f1 is None


def f1(true: int, false: int, num_objects: int) -> float:
    return 2 * true / max(1, true + false + num_objects)


def test_the_common_threshold_is_that_of_the_best_f1_of_all(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., Any],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    tree = random_tree(5, num_images=15, num_categories=3, num_objects=70)
    truth, found = ground_truth_of(tree), random_detections(5, tree, per_image=25)
    scores = of_images(truth, found)
    metrics = CocoMetrics(truth)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    (matching,) = match_detections(metrics.problem(), (0.5,))
    num_objects = int((~truth.is_crowd).sum())

    def of_all(at: float) -> float:
        shown = found.scores >= at
        true, false = (matching.is_true & shown).sum(), (matching.is_false & shown).sum()
        return f1(int(true), int(false), num_objects)

    best = max((of_all(at), at) for at in found.scores.tolist())
    assert scores.score_threshold == best[1]
    true, false = (sum(getattr(one, key) for one in scores.images) for key in ("tp", "fp"))
    assert f1(true, false, num_objects) == pytest.approx(best[0])


def test_by_hand() -> None:
    """Image 1: one of two cats is found, and a false one; image 2: empty, a false one."""
    box, far = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 10.0, 10.0]
    truth = GroundTruth(
        categories=Categories.from_names(["cat"]),
        image_ids=np.array([1, 2, 3]),
        image_sizes=np.full((3, 2), 100),
        annotation_ids=np.array([1, 2, 3]),
        annotation_image_ids=np.array([1, 1, 3]),
        category_labels=np.zeros(3, dtype=np.int64),
        boxes_xywh=np.array([box, far, box]),
        areas=np.full(3, 100.0),
        is_crowd=np.zeros(3, dtype=bool),
    )
    found = DetectionArrays(
        np.array([1, 1, 2]),
        np.array([box, [20.0, 20.0, 10.0, 10.0], box]),
        np.array([0.9, 0.5, 0.95]),
        np.zeros(3, dtype=np.int64),
    )
    scores = of_images(truth, found)
    assert scores.score_threshold == 0.9
    one, two, three = scores.images
    assert (one.tp, one.fp, one.fn, one.AP) == (1, 0, 1, pytest.approx(51 / 101))
    assert (one.best_f1, one.best_f1_score) == (pytest.approx(2 / 3), 0.9)
    assert (two.tp, two.fp, two.fn, two.AP, two.best_f1) == (0, 1, 0, None, None)
    assert (three.tp, three.fp, three.fn, three.AP) == (0, 0, 1, 0.0)
    assert (three.best_f1, three.best_f1_score) == (0.0, None)


def test_nothing_found_and_nothing_to_find(
    random_tree: Callable[..., Any], ground_truth_of: Callable[[Any], Any]
) -> None:
    tree = random_tree(0, num_images=4, num_categories=2, num_objects=10)
    none = np.zeros(0, dtype=np.int64)
    nothing = DetectionArrays(none, np.zeros((0, 4)), np.zeros(0), none)
    scores = of_images(ground_truth_of(tree), nothing)
    assert scores.score_threshold is None
    assert sum(one.tp + one.fp for one in scores.images) == 0
    empty = of_images(ground_truth_of({**tree, "annotations": []}), nothing)
    assert {one.AP for one in empty.images} == {None}
    image = tree["images"][0]["id"]
    false = DetectionArrays(
        np.array([image]), np.ones((1, 4)), np.array([0.5]), np.zeros(1, dtype=np.int64)
    )
    found = of_images(ground_truth_of({**tree, "annotations": []}), false)
    assert found.score_threshold is None
    assert {one.fp for one in found.images} == {0}
