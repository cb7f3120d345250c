"""The cells of a stage compared with its best, on the same resamples of the validation images.

Letters: C cells, D seeds, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.bootstrap import ImageMatches, average_precisions
from retina.instruments.number_formatting import shown
from retina.instruments.tuning.grid import Cell, GridConfig, paper_alpha
from retina.instruments.tuning.intervals import Interval, seeds_and_images_interval
from retina.losses.focal_parameters import DEFAULT_GAMMA
from retina.structures import FloatArray, IntArray

NEGLIGIBLE = 0.001
"""A difference of AP below this is none, whatever its interval says; an AP below it is nothing."""

FEWEST_IMAGES = 20
"""With objects. Resamples of fewer are too much alike for an interval to mean anything: of a single
image they are all the same."""


@dataclass(frozen=True, slots=True)
class CellScores:
    """What one cell reaches.

    Attributes:
        cell: the loss.
        failures: of its runs, in words; a cell with failures has no numbers.
        aps: ``(D,)`` of each seed's run.
        ap50: mean over the seeds.
        samples: ``(S,)`` the mean over the seeds in each resample of the images.
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
        interval: of its AP; None where it failed, or where the images are too few for one.
        behind: the best cell's AP minus this one's; None where it failed.
        behind_interval: of that difference, paired image by image and seed by seed; None as above.
    """

    scores: CellScores
    interval: Interval | None
    behind: float | None
    behind_interval: Interval | None

    @property
    def cell(self) -> Cell:
        """The γ and α that these runs trained with."""
        return self.scores.cell

    @property
    def is_contender(self) -> bool:
        """Whether images and seeds do not tell it from the best."""
        if self.behind is None:
            return False
        if self.behind_interval is None:
            return True
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

    @property
    def has_learned(self) -> bool:
        """Whether any cell has an AP to speak of."""
        return any(row.scores.ap >= NEGLIGIBLE for row in self.rows)

    def verdicts(self) -> list[str]:
        """What each comparison with the best says, in words."""
        if not self.has_learned:
            return []
        return [
            _verdict(self.symbol, self.best, row)
            for row in self.rows
            if row.cell != self.best and row.behind is not None
        ]


def score_cell(
    cell: Cell, runs: Sequence[ImageMatches], ap50: float, multiplicities: IntArray
) -> CellScores:
    """The AP of a cell whose runs, one for each seed, all came through.

    Args:
        cell: the loss.
        runs: of each seed.
        ap50: mean over the seeds.
        multiplicities: ``(S, I)`` how often each validation image counts. The same for every cell,
            so that all comparisons are paired.
    """
    every_image_once = np.ones((1, runs[0].num_images), dtype=np.int64)
    by_seed = np.stack([average_precisions(run, multiplicities) for run in runs])  # (D, S)
    return CellScores(
        cell=cell,
        failures=(),
        aps=tuple(float(average_precisions(run, every_image_once)[0]) for run in runs),
        ap50=ap50,
        samples=by_seed.mean(axis=0),
    )


def compare(
    symbol: str, scores: Sequence[CellScores], grid: GridConfig, *, num_images: int
) -> Stage | None:
    """The stage's result, or None where no cell came through.

    The best cell is not always chosen: where the images do not tell it from the paper's value, that
    one is, since it has been tried on more than these images.

    Args:
        symbol: γ or α, what is searched.
        scores: of the cells, in the order of the grid.
        grid: says the confidence.
        num_images: of the validation set, with objects.
    """
    finished = [one for one in scores if one.samples is not None]
    if not finished:
        return None
    best = max(finished, key=lambda one: one.ap)
    confidence = grid.confidence if num_images >= FEWEST_IMAGES else None
    rows = tuple(_row(one, best, confidence) for one in scores)
    default = _paper_cell(symbol, best.cell)
    contenders = [row.cell for row in rows if row.is_contender]
    chosen = default if default in contenders else best.cell
    if best.ap < NEGLIGIBLE:
        reason = f"nothing was learned, the highest AP is {best.ap:.4f}; give more epochs"
    elif len(finished) == 1:
        reason = f"{_named(symbol, best.cell)} is the only one that came through"
    else:
        reason = _reason(symbol, best.cell, default, contenders)
    return Stage(symbol, rows, best.cell, chosen, reason)


def _row(scores: CellScores, best: CellScores, confidence: float | None) -> Row:
    """A line; without a confidence it has no intervals."""
    if scores.samples is None or best.samples is None:
        return Row(scores, None, None, None)
    behind = best.ap - scores.ap
    if confidence is None:
        return Row(scores, None, behind, None)
    differences = np.subtract(best.aps, scores.aps).tolist()
    return Row(
        scores=scores,
        interval=seeds_and_images_interval(scores.aps, scores.samples, confidence),
        behind=behind,
        behind_interval=seeds_and_images_interval(
            differences, best.samples - scores.samples, confidence
        ),
    )


def _paper_cell(symbol: str, best: Cell) -> Cell:
    if symbol == "γ":
        return Cell(DEFAULT_GAMMA, best.alpha)
    return Cell(best.gamma, paper_alpha(best.gamma))


def _reason(symbol: str, best: Cell, default: Cell, contenders: Sequence[Cell]) -> str:
    top, usual = _named(symbol, best), _named(symbol, default)
    if default == best:
        return f"{top} is the paper's value and the best"
    if default in contenders:
        return f"{top} is the best, but not distinguishable from the paper's {usual}, which is kept"
    others = [_named(symbol, cell) for cell in contenders if cell != best]
    if others:
        return f"{top} is the best; {', '.join(others)} cannot be told from it on these images"
    return f"{top} is the best, and clearly so"


def _verdict(symbol: str, best: Cell, row: Row) -> str:
    assert row.behind is not None
    lead = f"{_named(symbol, best)} beats {_named(symbol, row.cell)} by {row.behind:.3f}"
    if row.behind_interval is None:
        return f"{lead}, no interval from so few images: not distinguishable"
    low, high = row.behind_interval
    meaning = "not distinguishable" if row.is_contender else "distinguishable"
    return f"{lead}, interval {signed(low)} … {signed(high)}: {meaning}"


def signed(value: float, digits: int = 3) -> str:
    """With a minus sign that is as wide as a digit."""
    return f"{value:.{digits}f}".replace("-", "−")


def _named(symbol: str, cell: Cell) -> str:
    return f"{symbol} = {shown(cell.gamma if symbol == 'γ' else cell.alpha)}"
