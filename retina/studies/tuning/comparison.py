"""The cells of a stage compared with its best, on the same resamples of the validation images.

Letters: C cells, D seeds, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.bootstrap import ImageMatches, average_precisions, interval
from retina.structures import FloatArray, IntArray
from retina.studies.tuning.grid import PAPER_GAMMA, Cell, GridConfig, paper_alpha

Interval = tuple[float, float]

NEGLIGIBLE = 0.001
"""A difference of AP below this is none, whatever its interval says."""


@dataclass(frozen=True, slots=True)
class Resamples:
    """What is drawn once and used for every cell, so that all comparisons are paired.

    Attributes:
        multiplicities: ``(S, I)`` how often each validation image counts.
        seeds: ``(S, D)`` which seeds count, drawn with replacement: 0 … D-1.
    """

    multiplicities: IntArray
    seeds: IntArray


@dataclass(frozen=True, slots=True)
class CellScores:
    """What one cell reaches.

    Attributes:
        cell: the loss.
        failures: of its runs, in words; a cell with failures has no numbers.
        aps: of each seed's run.
        ap50: mean over the seeds.
        samples: ``(S,)`` the mean AP in each resample.
    """

    cell: Cell
    failures: tuple[str, ...]
    aps: tuple[float, ...] = ()
    ap50: float = float("nan")
    samples: FloatArray | None = None

    @property
    def ap(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.aps)) if self.aps else float("nan")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result.

    Attributes:
        scores: what the cell reaches.
        interval: of its AP; None where it failed.
        behind: the best cell's AP minus this one's; None where it failed.
        behind_interval: of that difference, paired.
    """

    scores: CellScores
    interval: Interval | None
    behind: float | None
    behind_interval: Interval | None

    @property
    def cell(self) -> Cell:
        """The loss."""
        return self.scores.cell

    @property
    def is_contender(self) -> bool:
        """Whether the images do not tell it from the best."""
        if self.behind is None or self.behind_interval is None:
            return False
        return self.behind < NEGLIGIBLE or self.behind_interval[0] <= 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the two searches.

    Attributes:
        symbol: γ or α, what is searched.
        rows: in the order of the grid.
        best: the cell with the highest AP.
        chosen: the cell to go on with.
        reason: why it was chosen, in a sentence.
    """

    symbol: str
    rows: tuple[Row, ...]
    best: Cell
    chosen: Cell
    reason: str

    def row(self, cell: Cell) -> Row:
        """The line of a cell."""
        return next(row for row in self.rows if row.cell == cell)

    def verdicts(self) -> list[str]:
        """What each comparison with the best says, in words."""
        return [
            _verdict(self.symbol, self.best, row)
            for row in self.rows
            if row.cell != self.best and row.behind is not None
        ]


def score_cell(
    cell: Cell, runs: Sequence[ImageMatches], ap50: float, resamples: Resamples
) -> CellScores:
    """The AP of a cell whose runs, one for each seed, all came through."""
    every_image_once = np.ones((1, runs[0].num_images), dtype=np.int64)
    by_seed = np.stack([average_precisions(run, resamples.multiplicities) for run in runs])
    picked = np.take_along_axis(by_seed.T, resamples.seeds, axis=1)  # (S, D)
    return CellScores(
        cell=cell,
        failures=(),
        aps=tuple(float(average_precisions(run, every_image_once)[0]) for run in runs),
        ap50=ap50,
        samples=picked.mean(axis=1),
    )


def compare(symbol: str, scores: Sequence[CellScores], grid: GridConfig) -> Stage | None:
    """The stage's result, or None where no cell came through.

    The best cell is not always chosen: where the images do not tell it from the paper's value, that
    one is, since it has been tried on more than these images.
    """
    finished = [one for one in scores if one.samples is not None]
    if not finished:
        return None
    best = max(finished, key=lambda one: one.ap)
    rows = tuple(_row(one, best, grid.confidence) for one in scores)
    default = _paper_cell(symbol, best.cell)
    contenders = [row.cell for row in rows if row.is_contender]
    chosen = default if default in contenders else best.cell
    return Stage(symbol, rows, best.cell, chosen, _reason(symbol, best.cell, default, contenders))


def _row(scores: CellScores, best: CellScores, confidence: float) -> Row:
    if scores.samples is None or best.samples is None:
        return Row(scores, None, None, None)
    return Row(
        scores=scores,
        interval=interval(scores.samples, confidence),
        behind=best.ap - scores.ap,
        behind_interval=interval(best.samples - scores.samples, confidence),
    )


def _paper_cell(symbol: str, best: Cell) -> Cell:
    if symbol == "γ":
        return Cell(PAPER_GAMMA, best.alpha)
    return Cell(best.gamma, paper_alpha(best.gamma))


def _reason(symbol: str, best: Cell, default: Cell, contenders: Sequence[Cell]) -> str:
    top, usual = _shown(symbol, best), _shown(symbol, default)
    if default == best:
        return f"{top} is the paper's value and the best"
    if default in contenders:
        return f"{top} is the best, but not distinguishable from the paper's {usual}, which is kept"
    others = [_shown(symbol, cell) for cell in contenders if cell != best]
    if others:
        return f"{top} is the best; {', '.join(others)} cannot be told from it on these images"
    return f"{top} is the best, and clearly so"


def _verdict(symbol: str, best: Cell, row: Row) -> str:
    assert row.behind is not None
    assert row.behind_interval is not None
    low, high = row.behind_interval
    meaning = "not distinguishable" if row.is_contender else "distinguishable"
    return (
        f"{_shown(symbol, best)} beats {_shown(symbol, row.cell)} by {row.behind:.3f}, interval "
        f"{signed(low)} … {signed(high)}: {meaning}"
    )


def signed(value: float, digits: int = 3) -> str:
    """With a minus sign that is as wide as a digit."""
    return f"{value:.{digits}f}".replace("-", "−")


def _shown(symbol: str, cell: Cell) -> str:
    value = cell.gamma if symbol == "γ" else cell.alpha
    return f"{symbol} = {'none' if value is None else f'{value:g}'}"
