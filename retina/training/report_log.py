"""The curves and the confusion matrix of a report in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retina.evaluation.report.confusion import MOST_CLASSES
from retina.evaluation.report.content import Report
from retina.evaluation.report.scored_split import stop_at
from retina.training.metric_log import BOARD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_IOU = "0.50"
_MOST_NAMES = 30
"""Whose names can be read beside a confusion matrix."""


def log_report(folder: Path, report: Report, *, step: int) -> None:
    """Add two figures to the TensorBoard log of a run.

    Args:
        folder: of the run.
        report: of its best detector.
        step: at which they shall stand.
    """
    # Each takes a second to import.
    from matplotlib.figure import Figure
    from torch.utils.tensorboard.writer import SummaryWriter

    curves = Figure(figsize=(10, 4), layout="constrained")
    recall, score = curves.subplots(1, 2)
    _draw_recall(recall, report)
    _draw_score(score, report)
    board: Any = SummaryWriter(str(folder / BOARD))
    try:
        board.add_figure("evaluation/curves", curves, step)
        if len(report.categories) <= MOST_CLASSES:  # of more there are only the confusions
            matrix = Figure(figsize=(7, 6), layout="constrained")
            _draw_confusion(matrix.subplots(), report)
            board.add_figure("evaluation/confusion", matrix, step)
    finally:
        board.close()


def _draw_recall(axes: Axes, report: Report) -> None:
    for iou, at in report.at_iou.items():
        if at.curves.mean is not None:
            mean = np.array(at.curves.mean, dtype=np.float64)
            axes.plot(at.curves.recall_levels, mean, label=f"IoU {iou}")
    axes.set(xlabel="recall", ylabel="precision, mean over the classes", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _draw_score(axes: Axes, report: Report) -> None:
    points = report.operating_points
    scores = np.array([point.score for point in points])
    tp, fp, fn = (
        np.array([getattr(point, name) for point in points]) for name in ("tp", "fp", "fn")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        axes.plot(scores, tp / (tp + fp), label="precision")
        axes.plot(scores, tp / (tp + fn), label="recall")
        axes.plot(scores, 2 * tp / (2 * tp + fp + fn), label="F1")
    axes.set(xlabel="score threshold", title="all classes, IoU 0.50", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _draw_confusion(axes: Axes, report: Report) -> None:
    """Shares of each row's objects, with background last, at the suggested score."""
    names = [category.name for category in report.categories]
    stop = stop_at(0.5 if report.suggested_score is None else report.suggested_score)
    counts = np.zeros((len(names) + 1, len(names) + 1))
    for cell in report.at_iou[_IOU].confusion.cells:
        counts[cell.truth, cell.detected] = cell.counts[stop]  # -1, background, is the last
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="detected", ylabel="labelled", title=f"score {stop / 100:.2f}, IoU {_IOU}")
    if len(names) <= _MOST_NAMES:
        ticks = range(len(names) + 1)
        axes.set_xticks(ticks, [*names, "background"], rotation=90, parse_math=False)
        axes.set_yticks(ticks, [*names, "background"], parse_math=False)
