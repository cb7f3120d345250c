"""Detections whose outcome is written down, and every threshold tried in the plainest way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retina.evaluation.thresholds import OperatingPoint, Outcomes, SplitOutcomes

Row = tuple[float, bool, int]
"""Score, whether an object is found, image."""


def outcomes(rows: Sequence[Row], objects: Sequence[int]) -> Outcomes:
    """Of one class; ``objects`` are those of each image."""
    ordered = sorted(rows, key=lambda row: -row[0])
    return Outcomes(
        scores=np.array([row[0] for row in ordered], dtype=np.float64),
        images=np.array([row[2] for row in ordered], dtype=np.int64),
        is_true=np.array([row[1] for row in ordered], dtype=np.bool_),
        objects=np.array(objects, dtype=np.int64),
    )


def split(**classes: tuple[Sequence[Row], Sequence[int]]) -> SplitOutcomes:
    every = [row for rows, _ in classes.values() for row in rows]
    objects = np.sum([objects for _, objects in classes.values()], axis=0)
    return SplitOutcomes(
        iou=0.5,
        names=tuple(classes),
        classes=tuple(outcomes(rows, objects) for rows, objects in classes.values()),
        all_classes=outcomes(every, objects.tolist()),
    )


def random_rows(seed: int, *, num: int = 80, num_images: int = 12) -> tuple[list[Row], list[int]]:
    """With many equal scores; higher ones are right more often."""
    random = np.random.default_rng(seed)
    scores = random.integers(1, 40, num) / 40
    is_true = random.random(num) < scores
    images = random.integers(0, num_images, num)
    objects = np.bincount(images[is_true], minlength=num_images) + random.integers(0, 3, num_images)
    rows = list(zip(scores.tolist(), is_true.tolist(), images.tolist(), strict=True))
    return rows, objects.tolist()


def every_point(one: Outcomes) -> list[OperatingPoint]:
    """At each score that a detection has, and with nothing shown; highest threshold first."""
    points = []
    for threshold in [2.0, *sorted(set(one.scores.tolist()), reverse=True)]:
        shown = one.is_true[one.scores >= threshold]
        true = int(np.count_nonzero(shown))
        points.append(
            OperatingPoint(threshold, true, len(shown) - true, one.num_objects, one.num_images)
        )
    return points
