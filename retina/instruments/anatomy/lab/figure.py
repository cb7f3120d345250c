"""A replay as heat maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retina.instruments.anatomy.elements import FocalSetting
from retina.instruments.anatomy.lab.replay import NOISE_RATE, LabCell
from retina.instruments.figures import new_figure, write_png
from retina.instruments.number_formatting import off_is_none, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARK = "#0f172a"

_PANELS: tuple[tuple[str, str, Callable[[LabCell], float]], ...] = (
    ("easy negatives' share\nof the gradient", "Blues", lambda cell: cell.gradient.easy_negatives),
    ("positives' share\nof the gradient", "PuOr", lambda cell: cell.gradient.positives),
    (
        f"drawn by wrong labels\non {NOISE_RATE:.0%} of the objects",
        "Reds",
        lambda cell: cell.noise_share,
    ),
)


def write_heat_maps(
    path: Path, cells: Sequence[LabCell], *, trained: FocalSetting | None, title: str
) -> None:
    """Draw three shares of the gradient over γ and α.

    Args:
        path: of the PNG.
        cells: of a whole grid.
        trained: the training's loss, marked with a dot where it is in the grid.
        title: of the figure.
    """
    gammas = list(dict.fromkeys(cell.gamma for cell in cells))
    alphas = list(dict.fromkeys(cell.alpha for cell in cells))
    figure = new_figure(3 + 3 * max(2.0, 0.62 * len(alphas)), 1.7 + max(1.6, 0.5 * len(gammas)))
    panels = figure.subplots(1, 3, squeeze=False, sharey=True)[0]
    for axes, (name, colours, read) in zip(panels, _PANELS, strict=True):
        rows = [
            [read(cell) for cell in cells if cell.gamma == gamma] for gamma in gammas
        ]  # alphas come in the same order at every gamma
        limit = 1.0 if colours == "PuOr" else max(0.01, *(max(row) for row in rows))
        axes.imshow(rows, cmap=colours, vmin=0.0, vmax=limit, aspect="auto")
        axes.set_title(name, fontsize=10)
        axes.set_xticks(range(len(alphas)), [shown(alpha) for alpha in alphas])
        axes.set_yticks(range(len(gammas)), [shown(gamma) for gamma in gammas])
        axes.set_xlabel("α")
        axes.tick_params(length=0)
        _write_values(axes, rows, limit, diverging=colours == "PuOr")
        for cell in cells:
            if trained is not None and _is_trained_with(cell, trained):
                place = alphas.index(cell.alpha) - 0.36, gammas.index(cell.gamma) - 0.28
                axes.plot(*place, "o", color=_MARK, markersize=5, markeredgecolor="white")
    panels[0].set_ylabel("γ")
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("•: trained with", fontsize=9, color="#475569")
    write_png(figure, path)


def _write_values(
    axes: Axes, rows: Sequence[Sequence[float]], limit: float, *, diverging: bool
) -> None:
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            depth = abs(value / limit - 0.5) * 2 if diverging else value / limit
            colour = "white" if depth > 0.65 else "#0f172a"
            text = f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{value:.1%}"
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)


def _is_trained_with(cell: LabCell, trained: FocalSetting) -> bool:
    if isinstance(trained.alpha, tuple):
        return False
    return (cell.gamma, cell.alpha) == (trained.gamma, off_is_none(trained.alpha))
