"""VOC's average precision against its development kit, written out box by box."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.voc_metrics import VocMetrics, voc_metrics
from retina.structures import Categories, GroundTruth

Box = tuple[float, float, float, float]


def devkit_overlap(one: Box, other: Box) -> float:
    """``VOCevaldet.m``: corners are pixels that belong to the box."""
    iw = min(one[2], other[2]) - max(one[0], other[0]) + 1
    ih = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if iw <= 0 or ih <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return iw * ih / (sum(areas) - iw * ih)


def devkit_ap(
    objects: dict[int, list[tuple[Box, bool]]],
    detections: list[tuple[int, Box, float]],
    iou: float,
) -> tuple[float, float]:
    """``VOCevaldet.m`` for one class: the area of 2010 and the eleven points of 2007."""
    positives = sum(not difficult for one in objects.values() for _, difficult in one)
    taken: set[tuple[int, int]] = set()
    true, false = [0], [0]
    for image, box, _ in sorted(detections, key=lambda row: -row[2]):
        best, at = -1.0, -1
        for number, (other, _) in enumerate(objects.get(image, [])):
            overlap = devkit_overlap(box, other)
            if overlap > best:
                best, at = overlap, number
        hit = miss = 0
        if best >= iou:
            if not objects[image][at][1]:
                hit = int((image, at) not in taken)
                miss = 1 - hit
                taken.add((image, at))
        else:
            miss = 1
        true.append(true[-1] + hit)
        false.append(false[-1] + miss)
    points = [
        (Fraction(t, positives), t / (t + f))
        for t, f in zip(true[1:], false[1:], strict=True)
        if t + f
    ]
    # VOCap.m, 2010: mrec = [0; rec; 1], mpre = [0; prec; 0], made to fall.
    recalls = [0.0, *(float(recall) for recall, _ in points), 1.0]
    precisions = [0.0, *(precision for _, precision in points), 0.0]
    for at in range(len(precisions) - 2, -1, -1):
        precisions[at] = max(precisions[at], precisions[at + 1])
    area = sum((recalls[at] - recalls[at - 1]) * precisions[at] for at in range(1, len(recalls)))
    eleven = [
        max((p for r, p in points if r >= Fraction(level, 10)), default=0.0) for level in range(11)
    ]
    return area, sum(eleven) / 11


def scored(
    truth: GroundTruth, found: DetectionArrays, ious: tuple[float, ...] = (0.5,)
) -> VocMetrics:
    metrics = CocoMetrics(truth)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return voc_metrics(truth, metrics.problem(), ious)


def random_case(seed: int) -> tuple[GroundTruth, DetectionArrays]:
    """Whole pixels, dense boxes, duplicates, difficult objects, a class without objects."""
    rng = np.random.default_rng(seed)
    num_images, num_objects, num_detections = 6, 50, 200

    def boxes(count: int) -> Any:
        return np.hstack([rng.integers(0, 40, (count, 2)), rng.integers(8, 40, (count, 2))])

    objects = boxes(num_objects).astype(float)
    of = rng.integers(0, num_objects, num_detections)
    near = objects[of] + rng.integers(-5, 6, (num_detections, 4))
    image_ids = rng.permutation(50)[:num_images]
    owner = rng.choice(image_ids, num_objects)
    labels = rng.integers(0, 3, num_objects)
    truth = GroundTruth(
        categories=Categories(("d", "b", "a", "c"), (9, 4, 2, 7)),
        image_ids=image_ids,
        image_sizes=np.full((num_images, 2), 80),
        annotation_ids=np.arange(num_objects) + 1,
        annotation_image_ids=owner,
        category_labels=labels,
        boxes_xywh=objects,
        areas=objects[:, 2] * objects[:, 3],
        is_crowd=np.zeros(num_objects, dtype=bool),
        is_difficult=rng.random(num_objects) < 0.3,
    )
    order = np.argsort(owner[of], kind="stable")
    scores = rng.permutation(num_detections) / num_detections
    others = np.where(rng.random(num_detections) < 0.2, rng.integers(0, 4, num_detections), -1)
    found_labels = np.where(others < 0, labels[of], others)
    return truth, DetectionArrays(owner[of][order], near[order], scores, found_labels[order])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("marked_as", ["difficult", "crowd"])
def test_it_is_what_the_development_kit_gives(seed: int, marked_as: str) -> None:
    truth, found = random_case(seed)
    marks = truth.is_difficult
    assert marks is not None
    given = truth if marked_as == "difficult" else replace(truth, is_crowd=marks, is_difficult=None)
    metrics = scored(given, found, (0.5, 0.7))
    assert metrics.per_category[3].AP is None
    areas, points = [], []
    for label in range(3):
        for number, iou in enumerate((0.5, 0.7)):
            objects: dict[int, list[tuple[Box, bool]]] = {}
            for row in np.flatnonzero(truth.category_labels == label):
                x, y, width, height = truth.boxes_xywh[row]
                # The same box in pixels that belong to it, counted from 1.
                box = (x + 1, y + 1, x + width, y + height)
                image = int(truth.annotation_image_ids[row])
                objects.setdefault(image, []).append((box, bool(marks[row])))
            detections = [
                (
                    int(found.image_ids[row]),
                    (
                        found.boxes_xywh[row, 0] + 1,
                        found.boxes_xywh[row, 1] + 1,
                        *(found.boxes_xywh[row, :2] + found.boxes_xywh[row, 2:]),
                    ),
                    float(found.scores[row]),
                )
                for row in np.flatnonzero(found.labels == label)
            ]
            area, eleven = devkit_ap(objects, detections, iou)
            assert 0 < area < 1
            assert metrics.per_category[label].AP_per_iou[number] == pytest.approx(area, abs=1e-12)
            areas.append(area)
            points.append(eleven)
    assert pytest.approx(np.mean(areas), abs=1e-12) == metrics.AP
    assert metrics.AP_11_point == pytest.approx(np.mean(points), abs=1e-12)
    assert pytest.approx(np.mean(areas[1::2]), abs=1e-12) == metrics.per_iou[1].AP
    assert metrics.per_iou[0].AP_11_point == pytest.approx(np.mean(points[::2]), abs=1e-12)


def truth_of(boxes: list[Box], difficult: list[bool] | None) -> GroundTruth:
    count = len(boxes)
    return GroundTruth(
        categories=Categories.from_names(["cat"]),
        image_ids=np.array([1]),
        image_sizes=np.array([[100, 100]]),
        annotation_ids=np.arange(count) + 1,
        annotation_image_ids=np.ones(count, dtype=np.int64),
        category_labels=np.zeros(count, dtype=np.int64),
        boxes_xywh=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        areas=np.full(count, 100.0),
        is_crowd=np.zeros(count, dtype=bool),
        is_difficult=None if difficult is None else np.array(difficult, dtype=bool),
    )


def found_at(boxes: list[Box], scores: list[float]) -> DetectionArrays:
    count = len(boxes)
    return DetectionArrays(
        np.ones(count, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(scores),
        np.zeros(count, dtype=np.int64),
    )


def test_by_hand() -> None:
    """Two objects and a difficult one; true, difficult, duplicate, true."""
    boxes = [(0.0, 0.0, 10.0, 10.0), (30.0, 0.0, 10.0, 10.0), (60.0, 0.0, 10.0, 10.0)]
    truth = truth_of(boxes, [False, False, True])
    found = found_at([boxes[0], boxes[2], boxes[0], boxes[1]], [0.9, 0.8, 0.7, 0.6])
    (cat,) = scored(truth, found).per_category
    assert (cat.num_ground_truth, cat.num_difficult) == (2, 1)
    # Precision 1 up to recall 1/2, then 2/3; 6 of the 11 levels lie up to 1/2.
    assert pytest.approx(0.5 + 0.5 * 2 / 3) == cat.AP
    assert cat.AP_11_point == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_what_cocos_rule_would_give_to_the_second_best_object_is_false() -> None:
    """Both detections overlap the first object most; COCO gives the second one the other."""
    boxes = [(0.0, 0.0, 10.0, 10.0), (3.0, 0.0, 10.0, 10.0)]
    found = found_at([boxes[0], (1.0, 0.0, 10.0, 10.0)], [0.9, 0.8])
    assert pytest.approx(0.5) == scored(truth_of(boxes, None), found).AP


def test_three_of_ten_objects_reach_the_level_of_three_tenths() -> None:
    boxes = [(20.0 * number, 0.0, 10.0, 10.0) for number in range(10)]
    found = found_at(boxes[:3], [0.9, 0.8, 0.7])
    assert scored(truth_of(boxes, None), found).AP_11_point == pytest.approx(4 / 11)


def test_nothing_found_and_nothing_to_find() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    nothing = found_at([], [])
    assert scored(truth_of([box], None), nothing).AP == 0
    for truth in (truth_of([], None), truth_of([box], [True])):
        metrics = scored(truth, found_at([box], [0.5]))
        assert (metrics.AP, metrics.AP_11_point) == (None, None)
        assert metrics.to_json()["per_iou"] == ({"iou": 0.5, "AP": None, "AP_11_point": None},)


def test_more_than_a_hundred_detections_count() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    boxes = [(50.0, 50.0, 10.0, 10.0)] * 150
    found = found_at([*boxes, box], [*np.linspace(0.9, 0.5, 150), 0.1])
    assert pytest.approx(1 / 151) == scored(truth_of([box], None), found).AP
