"""The result of a tuning as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retina.instruments.figures import new_figure, write_png
from retina.instruments.number_formatting import shown
from retina.instruments.tuning.comparison import FEWEST_IMAGES, NEGLIGIBLE, Row, Stage
from retina.instruments.tuning.search import TuningResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHOSEN, _OTHER, _FAILED = "#c2410c", "#334155", "#b91c1c"


def write_figure(result: TuningResult, path: Path) -> None:
    """Draw AP and, below it, what each cell is behind the best, with their intervals."""
    figure = new_figure(9, 6)
    axes = figure.subplots(
        2, 2, sharex="col", sharey="row", gridspec_kw={"height_ratios": [3, 2]}, squeeze=False
    )
    for column, stage in enumerate(result.stages):
        _draw_ap(axes[0, column], stage)
        _draw_difference(axes[1, column], stage)
    if not any(stage.has_learned for stage in result.stages):
        axes[0, 0].set_ylim(-NEGLIGIBLE, 20 * NEGLIGIBLE)
    low, high = axes[1, 0].get_ylim()  # what is next to nothing shall not fill the figure
    axes[1, 0].set_ylim(min(low, -5 * NEGLIGIBLE), max(high, 5 * NEGLIGIBLE))
    axes[0, 0].set_ylabel("AP")
    axes[1, 0].set_ylabel("AP behind the best\n(paired)")
    images, seeds = (
        f"1 {what}" if count == 1 else f"{count} {what}s"
        for what, count in (("validation image", result.num_images), ("seed", len(result.seeds)))
    )
    intervals = (
        f"{result.grid.confidence:.0%} intervals"
        if result.num_images_with_objects >= FEWEST_IMAGES
        else "too few for intervals"
    )
    figure.suptitle(
        f"γ first, then α: {images}, {seeds}, {intervals}",
        fontsize=11,
    )
    legend = "orange: chosen (where the best cannot be told from the paper's value, that one)" + (
        "   –: single seeds" if len(result.seeds) > 1 else ""
    )
    figure.supxlabel(legend, fontsize=9, color="#475569")
    write_png(figure, path)


def _draw_ap(axes: Axes, stage: Stage) -> None:
    fixed = shown(stage.chosen.alpha if stage.symbol == "γ" else stage.chosen.gamma)
    other = "α" if stage.symbol == "γ" else "γ"
    axes.set_title(f"search for {stage.symbol} at {other} = {fixed}", fontsize=10)
    axes.grid(axis="y", color="#e2e8f0")
    axes.set_axisbelow(True)
    for place, row in enumerate(stage.rows):
        colour = _colour(row, stage)
        if row.scores.failures:
            axes.text(
                place, 0.5, "failed", color=_FAILED, rotation=90, ha="center", va="center",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            continue
        if row.interval is not None:
            axes.vlines(place, *row.interval, color=colour, linewidth=2)
        if len(row.scores.aps) > 1:
            places = [place] * len(row.scores.aps)
            axes.plot(places, row.scores.aps, "_", color=colour, markersize=9)
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
        if row.behind is None:
            continue
        colour = _colour(row, stage)
        if row.behind_interval is not None:
            axes.vlines(place, *row.behind_interval, color=colour, linewidth=2)
        axes.plot(place, row.behind, "o", color=colour, markersize=6)
    axes.set_xticks(
        range(len(stage.rows)),
        [shown(row.cell.gamma if stage.symbol == "γ" else row.cell.alpha) for row in stage.rows],
    )
    axes.set_xlabel(stage.symbol)


def _colour(row: Row, stage: Stage) -> str:
    return _CHOSEN if row.cell == stage.chosen else _OTHER
