"""What a tuning tries: the grid of γ and α, and how long each run may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, field_validator

from retina.configuration import Config
from retina.instruments.number_formatting import off_is_none, shown
from retina.losses.focal_parameters import DEFAULT_ALPHA, check_alpha
from retina.training.config import Count

_PAPER_ALPHAS = {0.0: 0.75, 0.5: 0.5}


def paper_alpha(gamma: float) -> float:
    """The α that the paper found best for a γ (its tables 1a and 1b); 0.25 from γ = 1 on."""
    return _PAPER_ALPHAS.get(gamma, DEFAULT_ALPHA)


class BudgetConfig(Config):
    """How long a run of the grid trains; the schedule is stretched over it."""

    epochs: Count | None = None
    """In place of training.epochs and min_steps; null leaves both as they are."""
    max_steps: Count | None = None
    """In place of training.max_steps; null leaves that as it is."""


class GridConfig(Config):
    """The values to try: γ first with α fixed, then α at the γ that was chosen."""

    gammas: Annotated[tuple[Annotated[float, Field(ge=0.0)], ...], Field(min_length=1)] = (
        0.0,
        0.5,
        1.0,
        2.0,
        5.0,
    )
    """Focusing parameters, tried with ``alpha``."""
    alpha: float | None = DEFAULT_ALPHA
    """The foreground's weight while γ is tried; null (or 1) weighs nothing."""
    alphas: Annotated[tuple[float | None, ...], Field(min_length=1)] = (0.1, 0.25, 0.5, 0.75, 0.9)
    """Foreground weights, tried at the chosen γ beside ``alpha``; null (or 1) weighs nothing."""
    seeds: (
        Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] | None
    ) = None
    """Every cell is trained once with each; null takes the experiment's seed alone, and the
    intervals then know nothing of what another seed would give."""
    budget: BudgetConfig = BudgetConfig()
    """How long each run trains."""
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 500
    """How many sets of validation images are drawn for the intervals."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of the intervals: the share of such studies whose interval holds the truth."""

    @field_validator("alpha")
    @classmethod
    def _alpha_makes_sense(cls, alpha: float | None) -> float | None:
        check_alpha(alpha)
        return off_is_none(alpha)

    @field_validator("alphas")
    @classmethod
    def _alphas_make_sense(cls, alphas: tuple[float | None, ...]) -> tuple[float | None, ...]:
        for alpha in alphas:
            check_alpha(alpha)
        return tuple(off_is_none(alpha) for alpha in alphas)

    @field_validator("gammas", "alphas", "seeds")
    @classmethod
    def _no_value_twice(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError(f"a value stands twice in {list(values)}")
        return values

    def gamma_cells(self) -> tuple[Cell, ...]:
        """What the first stage tries, γ rising."""
        return tuple(Cell(gamma, self.alpha) for gamma in sorted(self.gammas))

    def alpha_cells(self, gamma: float) -> tuple[Cell, ...]:
        """What the second stage tries, α rising; the cell of the first stage is among them."""
        alphas = {*self.alphas, self.alpha}
        rising = sorted(alphas, key=lambda alpha: 1.0 if alpha is None else alpha)
        return tuple(Cell(gamma, alpha) for alpha in rising)


@dataclass(frozen=True, slots=True)
class Cell:
    """One loss of the grid."""

    gamma: float
    alpha: float | None

    @property
    def name(self) -> str:
        """The name of the folder that holds its runs, for example ``gamma2_alpha0.25``."""
        return f"gamma{shown(self.gamma)}_alpha{shown(self.alpha)}"

    @property
    def overrides(self) -> tuple[str, str]:
        """What it changes in the experiment's config."""
        alpha = "null" if self.alpha is None else f"{self.alpha!r}"
        return (
            f"objective.classification.gamma={self.gamma!r}",
            f"objective.classification.alpha={alpha}",
        )
