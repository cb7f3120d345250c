"""The numbers as tables and as ``metrics.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from retina.evaluation.metrics import DetectionMetrics
from retina.storage import write_text
from retina.tables import Column, Table

# Key, IoU thresholds, annotated areas, cap on the detections (0: the highest).
_MEANINGS = (
    ("AP", "0.50:0.95", "all", 0),
    ("AP50", "0.50", "all", 0),
    ("AP75", "0.75", "all", 0),
    ("APs", "0.50:0.95", "small, up to 32²", 0),
    ("APm", "0.50:0.95", "medium, up to 96²", 0),
    ("APl", "0.50:0.95", "large, above 96²", 0),
    ("AR1", "0.50:0.95", "all", 1),
    ("AR10", "0.50:0.95", "all", 10),
    ("AR100", "0.50:0.95", "all", 0),
    ("ARs", "0.50:0.95", "small, up to 32²", 0),
    ("ARm", "0.50:0.95", "medium, up to 96²", 0),
    ("ARl", "0.50:0.95", "large, above 96²", 0),
)

_PER_CATEGORY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def summary_table(metrics: DetectionMetrics) -> Table:
    """The twelve numbers, one per line; a dash where a split has no ground truth of that size."""
    rows = tuple(
        {
            "metric": name,
            "iou": iou,
            "area": area,
            "detections": min(cap, metrics.max_detections) or metrics.max_detections,
            "value": getattr(metrics, name),
            "kind": name[:2],  # average precision, average recall
        }
        for name, iou, area, cap in _MEANINGS
    )
    return Table(
        title="COCO metrics",
        columns=(
            Column("metric", "metric"),
            Column("IoU", "iou"),
            Column("area", "area"),
            Column("detections", "detections", justify="right"),
            Column(
                "value",
                "value",
                partial(_shown, digits=4),
                justify="right",
                style=lambda _: "bold",
            ),
        ),
        rows=rows,
        section="kind",
    )


def category_table(metrics: DetectionMetrics) -> Table:
    """The numbers of every category; a dash where it has no ground truth of that size.

    The last two columns are the highest F1 at IoU 0.5 and the score threshold that gives it. The
    table fits a terminal of 80 columns.
    """
    number = partial(Column, justify="right")
    return Table(
        title="per category (F1: the highest at IoU 0.5, and its score threshold)",
        columns=(
            Column("category", "name"),
            number("objects", "num_ground_truth"),
            *(number(name, name, _shown) for name in _PER_CATEGORY),
            number("F1", "best_f1", _shown),
            number("score", "best_f1_score", partial(_shown, digits=2)),
        ),
        rows=tuple(asdict(category) for category in metrics.per_category),
        look="tight",
    )


def write_metrics(path: Path, metrics: DetectionMetrics) -> None:
    """Write ``metrics.json`` in one step.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    write_text(path, json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n")


def _shown(value: float | None, *, digits: int = 3) -> str:
    return "–" if value is None or value < 0 else f"{value:.{digits}f}"
