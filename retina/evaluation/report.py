"""The numbers as tables for the terminal and as ``metrics.json``."""

from __future__ import annotations

import json
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from retina.evaluation.metrics import CategoryMetrics, DetectionMetrics
from retina.storage import write_text

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
    table = Table(title="COCO metrics", title_justify="left")
    for column in ("metric", "IoU", "area"):
        table.add_column(column)
    table.add_column("detections", justify="right")
    table.add_column("value", justify="right", style="bold")
    for number, (name, iou, area, cap) in enumerate(_MEANINGS):
        cap = min(cap, metrics.max_detections) or metrics.max_detections
        value = getattr(metrics, name)
        table.add_row(name, iou, area, f"{cap}", _shown(value, digits=4), end_section=number == 5)
    return table


def category_table(metrics: DetectionMetrics) -> Table:
    """The numbers of every category; a dash where it has no ground truth of that size.

    The last two columns are the highest F1 at IoU 0.5 and the score threshold that gives it. The
    table fits a terminal of 80 columns.
    """
    table = Table(
        title="per category (F1: the highest at IoU 0.5, and its score threshold)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,  # the box has a space between columns
    )
    table.add_column("category", overflow="fold")
    for name in ("objects", *_PER_CATEGORY, "F1", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for category in metrics.per_category:
        table.add_row(*_cells(category))
    return table


def write_metrics(path: Path, metrics: DetectionMetrics) -> None:
    """Write ``metrics.json`` in one step.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    write_text(path, json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n")


def _cells(category: CategoryMetrics) -> list[str]:
    values = [getattr(category, name) for name in _PER_CATEGORY]
    return [
        escape(category.name),
        str(category.num_ground_truth),
        *(_shown(value) for value in (*values, category.best_f1)),
        _shown(category.best_f1_score, digits=2),
    ]


def _shown(value: float | None, *, digits: int = 3) -> str:
    return "–" if value is None or value < 0 else f"{value:.{digits}f}"
