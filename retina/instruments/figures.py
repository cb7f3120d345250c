"""Figures that need no screen, and their way into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retina.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a moment to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure in one step; errors as in `replacing`."""
    with replacing(path) as aside, aside.open("wb") as file:
        figure.savefig(file, format="png")
