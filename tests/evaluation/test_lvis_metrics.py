"""LVIS's federated metric: a case by hand, and its own rules written out plainly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.lvis_metrics import LvisMetrics, lvis_metrics
from retina.structures import Categories, Federation, GroundTruth

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def scored(truth: GroundTruth, found: DetectionArrays, **options: Any) -> LvisMetrics:
    metrics = CocoMetrics(truth)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return lvis_metrics(truth, metrics.problem(), **options)


def random_case(seed: int) -> tuple[GroundTruth, DetectionArrays]:
    """Ids in no order; of each image some classes absent, some not exhaustively annotated."""
    rng = np.random.default_rng(seed)
    num_images, num_classes, num_objects, per_image = 8, 6, 60, 40
    image_ids = rng.permutation(40)[:num_images] + 1
    sizes = np.exp(rng.uniform(2, 5.5, (num_objects, 2)))
    boxes = np.hstack([rng.uniform(0, 200, (num_objects, 2)), sizes])
    owner = rng.integers(0, num_images, num_objects)
    labels = rng.integers(0, num_classes - 1, num_objects)  # the last class has no object
    present = {(int(row), int(label)) for row, label in zip(owner, labels, strict=True)}
    every = [(row, label) for row in range(num_images) for label in range(num_classes)]
    absent = [pair for pair in every if pair not in present and rng.random() < 0.4]
    partly = [pair for pair in sorted(present) if rng.random() < 0.3]
    truth = GroundTruth(
        categories=Categories(tuple("abcdef"), tuple(rng.permutation(20)[:num_classes].tolist())),
        image_ids=image_ids,
        image_sizes=np.full((num_images, 2), 400),
        annotation_ids=np.arange(num_objects) + 1,
        annotation_image_ids=image_ids[owner],
        category_labels=labels,
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3] * 0.7,
        is_crowd=np.zeros(num_objects, dtype=bool),
        federation=Federation(
            np.array(absent).reshape(-1, 2), np.array(partly).reshape(-1, 2), tuple("rcfrcf")
        ),
    )
    rows = np.repeat(np.arange(num_images), per_image)
    of = np.array([rng.choice(np.append(np.flatnonzero(owner == row), -1)) for row in rows])
    near = boxes[of] + rng.normal(0, 0.07, (len(of), 4)) * boxes[of][:, [2, 3, 2, 3]]
    found = np.where((of < 0)[:, None], rng.uniform(5, 200, (len(of), 4)), near)
    found_labels = np.where(rng.random(len(of)) < 0.3, rng.integers(0, 6, len(of)), labels[of])
    scores = rng.permutation(len(of)) / len(of)
    return truth, DetectionArrays(image_ids[rows], found, scores, found_labels)


def overlap(one: Any, other: Any) -> float:
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def plain_ap(truth: GroundTruth, found: DetectionArrays, label: int, cap: int) -> list[float]:
    """LVIS's AP of one class at each IoU, all areas, by the words of its paper and program."""
    federation = truth.federation
    assert federation is not None
    absent = {tuple(pair) for pair in federation.absent.tolist()}
    partly = {tuple(pair) for pair in federation.not_exhaustive.tolist()}
    num_objects = int((truth.category_labels == label).sum())
    values = []
    for iou in IOUS:
        outcomes = []  # (score, has it found an object)
        for row, image in enumerate(truth.image_ids.tolist()):
            best = np.flatnonzero(found.image_ids == image)
            best = best[np.argsort(-found.scores[best], kind="stable")][:cap]
            own = (truth.annotation_image_ids == image) & (truth.category_labels == label)
            if not own.any() and (row, label) not in absent:
                continue  # nobody knows
            free = np.flatnonzero(own).tolist()
            for at in best[found.labels[best] == label]:
                overlaps = [overlap(found.boxes_xywh[at], truth.boxes_xywh[one]) for one in free]
                hit = bool(overlaps) and max(overlaps) >= iou
                if hit:
                    free.pop(int(np.argmax(overlaps)))
                if hit or (row, label) not in partly:
                    outcomes.append((float(found.scores[at]), hit))
        hits = np.array([hit for _, hit in sorted(outcomes, reverse=True)], dtype=bool)
        true = np.cumsum(hits)
        precision = true / np.arange(1, len(hits) + 1)
        levels = [precision[true / num_objects >= level].max(initial=0) for level in RECALLS]
        values.append(float(np.mean(levels)))
    return values


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [300, 9])
def test_it_is_what_the_plain_rules_give(seed: int, cap: int) -> None:
    truth, found = random_case(seed)
    metrics = scored(truth, found, max_detections=cap)
    expected = [plain_ap(truth, found, label, cap) for label in range(5)]
    for category, values in zip(metrics.per_category, expected, strict=False):
        assert category.AP_per_iou == pytest.approx(values, abs=1e-9)
    table = np.array(expected)
    assert metrics.per_category[5].AP is None
    assert pytest.approx(table.mean(), abs=1e-9) == metrics.AP
    assert pytest.approx(table[:, 0].mean(), abs=1e-9) == metrics.AP50
    assert pytest.approx(table[:, 5].mean(), abs=1e-9) == metrics.AP75
    assert metrics.APr == pytest.approx(table[[0, 3]].mean(), abs=1e-9)
    assert metrics.APc == pytest.approx(table[[1, 4]].mean(), abs=1e-9)
    assert metrics.APf == pytest.approx(table[2].mean(), abs=1e-9)  # f has no object
    assert metrics.max_detections == cap


def by_hand(**changes: Any) -> tuple[GroundTruth, DetectionArrays]:
    """One cat in image 1; a cat is found there, and better ones at no object in images 1 to 4."""
    federation = {
        "absent": np.array([[1, 0]]),  # image 2 has no cat; of 3 and 4 nobody knows
        "not_exhaustive": np.array([[0, 0]]),
        "frequencies": ("r",),
        **changes,
    }
    box = [10.0, 10.0, 20.0, 20.0]
    truth = GroundTruth(
        categories=Categories.from_names(["cat"]),
        image_ids=np.array([1, 2, 3, 4]),
        image_sizes=np.full((4, 2), 100),
        annotation_ids=np.array([1]),
        annotation_image_ids=np.array([1]),
        category_labels=np.array([0]),
        boxes_xywh=np.array([box]),
        areas=np.array([400.0]),
        is_crowd=np.zeros(1, dtype=bool),
        federation=Federation(**federation),
    )
    far = [60.0, 60.0, 20.0, 20.0]
    return truth, DetectionArrays(
        np.array([1, 1, 2, 3, 4]),
        np.array([box, far, far, far, far]),
        np.array([0.5, 0.9, 0.8, 0.7, 0.6]),
        np.zeros(5, dtype=np.int64),
    )


def test_by_hand() -> None:
    nothing = np.zeros((0, 2), dtype=np.int64)
    assert pytest.approx(1 / 2) == scored(*by_hand()).AP  # false: that of image 2
    assert pytest.approx(1 / 3) == scored(*by_hand(not_exhaustive=nothing)).AP
    assert pytest.approx(1) == scored(*by_hand(absent=nothing)).AP
    every = np.array([[1, 0], [2, 0], [3, 0]])
    all_known = scored(*by_hand(absent=every, not_exhaustive=nothing))
    assert pytest.approx(1 / 5) == all_known.AP  # as COCO has it
    assert (all_known.APr, all_known.APc, all_known.APf) == (all_known.AP, None, None)


def test_at_other_ious() -> None:
    truth, found = random_case(0)
    whole = scored(truth, found)
    some = scored(truth, found, ious=(0.55, 0.75))
    assert [one.AP for one in some.per_iou] == [whole.per_iou[1].AP, whole.per_iou[5].AP]
    assert pytest.approx((whole.per_iou[1].AP + whole.per_iou[5].AP) / 2) == some.AP  # type: ignore[operator]
    assert (some.AP50, some.AP75) == (None, whole.AP75)


def test_nothing_found() -> None:
    truth = by_hand()[0]
    none = np.zeros(0, dtype=np.int64)
    empty = DetectionArrays(none, np.zeros((0, 4)), np.zeros(0), none)
    assert scored(truth, empty).AP == 0


def test_an_ordinary_file_is_refused() -> None:
    truth, found = by_hand()
    with pytest.raises(UserError, match="neg_category_ids"):
        scored(replace(truth, federation=None), found)


def test_images_and_classes_that_are_taken_keep_what_is_known_of_them() -> None:
    federation = Federation(np.array([[0, 1], [2, 0]]), np.array([[2, 1], [1, 1]]), ("r", "f"))
    some = federation.take_images(np.array([2, 0]), 3)
    assert some.absent.tolist() == [[1, 1], [0, 0]]
    assert some.not_exhaustive.tolist() == [[0, 1]]
    one = federation.relabelled(np.array([-1, 0]), 1)
    assert (one.absent.tolist(), one.frequencies) == ([[0, 0]], ("f",))
