"""Precision over recall, per class and mean, at the IoUs of a report.

Letters: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.report.confusion import MOST_CLASSES

Curve = tuple[float | None, ...]
"""101 precisions; the highest at this recall or beyond."""

_MOST_CURVES = 50


@dataclass(frozen=True, slots=True)
class RecallCurves:
    """Precision at 101 recalls.

    Attributes:
        recall_levels: 0.00 … 1.00.
        mean: over the classes that have objects; None where none has.
        labels: whose curves are kept: all, or with many classes those with most objects.
        categories: the curve of each of them; None without objects.
    """

    recall_levels: tuple[float, ...]
    mean: Curve | None
    labels: tuple[int, ...]
    categories: tuple[Curve | None, ...]


def recall_curves(result: DetectionMetrics, iou: float) -> RecallCurves:
    """The curves at one IoU, of all areas, with the highest cap on the detections."""
    num_classes = len(result.per_category)
    labels = list(range(num_classes))
    if num_classes > MOST_CLASSES:
        labels.sort(key=lambda label: -result.per_category[label].num_ground_truth)
        labels = sorted(labels[:_MOST_CURVES])
    curves = np.array([result.curves.curve(label, iou=iou) for label in range(num_classes)])
    known = curves[curves[:, 0] >= 0] if num_classes else curves
    return RecallCurves(
        recall_levels=tuple(np.round(result.curves.recall_levels, 2).tolist()),
        mean=tuple(known.mean(axis=0).tolist()) if len(known) else None,
        labels=tuple(labels),
        categories=tuple(
            tuple(curves[label].tolist()) if curves[label, 0] >= 0 else None for label in labels
        ),
    )
