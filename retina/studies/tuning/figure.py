"""The result of a tuning as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from retina.storage import replacing
from retina.studies.tuning.comparison import Row, Stage
from retina.studies.tuning.search import TuningResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHOSEN, _OTHER, _FAILED = "#c2410c", "#334155", "#b91c1c"


def write_figure(result: TuningResult, path: Path) -> None:
    """Draw AP and, below it, what each cell is behind the best, with their intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a moment to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, 2, sharex="col", sharey="row", gridspec_kw={"height_ratios": [3, 2]}, squeeze=False
    )
    for column, stage in enumerate(result.stages):
        _draw_ap(axes[0, column], stage)
        _draw_difference(axes[1, column], stage)
    axes[0, 0].set_ylabel("AP")
    axes[1, 0].set_ylabel("AP behind the best\n(paired)")
    seeds = "1 seed" if len(result.seeds) == 1 else f"{len(result.seeds)} seeds"
    figure.suptitle(
        f"γ first, then α: {result.num_images} validation images, {seeds}, "
        f"{result.grid.confidence:.0%} bootstrap intervals",
        fontsize=11,
    )
    legend = "orange: chosen, the paper's value where the best cannot be told from it" + (
        "   –: single seeds" if len(result.seeds) > 1 else ""
    )
    figure.supxlabel(legend, fontsize=9, color="#475569")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    with replacing(path) as aside:
        aside.write_bytes(content.getvalue())


def _draw_ap(axes: Axes, stage: Stage) -> None:
    fixed = _shown(stage.chosen.alpha) if stage.symbol == "γ" else f"{stage.chosen.gamma:g}"
    other = "α" if stage.symbol == "γ" else "γ"
    axes.set_title(f"search for {stage.symbol} at {other} = {fixed}", fontsize=10)
    axes.grid(axis="y", color="#e2e8f0")
    axes.set_axisbelow(True)
    for place, row in enumerate(stage.rows):
        colour = _colour(row, stage)
        if row.interval is None:
            axes.text(
                place, 0.5, "failed", color=_FAILED, rotation=90, ha="center", va="center",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            continue
        axes.vlines(place, *row.interval, color=colour, linewidth=2)
        axes.plot([place] * len(row.scores.aps), row.scores.aps, "_", color=colour, markersize=9)
        axes.plot(place, row.scores.ap, "o", color=colour, markersize=7)
        axes.annotate(
            f"{row.scores.ap:.3f}", (place, row.scores.ap), xytext=(7, 0), color=colour,
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axes.set_xlim(-0.6, len(stage.rows) - 0.3)  # room for the last number


def _draw_difference(axes: Axes, stage: Stage) -> None:
    axes.axhline(0, color="#94a3b8", linewidth=1)
    axes.grid(axis="y", color="#e2e8f0")
    axes.set_axisbelow(True)
    for place, row in enumerate(stage.rows):
        if row.behind_interval is None or row.behind is None:
            continue
        colour = _colour(row, stage)
        axes.vlines(place, *row.behind_interval, color=colour, linewidth=2)
        axes.plot(place, row.behind, "o", color=colour, markersize=6)
    axes.set_xticks(
        range(len(stage.rows)),
        [
            f"{row.cell.gamma:g}" if stage.symbol == "γ" else _shown(row.cell.alpha)
            for row in stage.rows
        ],
    )
    axes.set_xlabel(stage.symbol)


def _colour(row: Row, stage: Stage) -> str:
    return _CHOSEN if row.cell == stage.chosen else _OTHER


def _shown(alpha: float | None) -> str:
    return "none" if alpha is None else f"{alpha:g}"
