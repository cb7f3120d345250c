"""Which γ and α a replay speaks for, by a plain rule that says its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retina.instruments.anatomy.lab.replay import NOISE_RATE, LabCell
from retina.instruments.number_formatting import shown

EASY_LIMIT = 0.1
"""Easy negatives should not draw more of the gradient than this."""

NOISE_LIMIT = 2 * NOISE_RATE
"""Nor wrong labels more than twice their share of the objects."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A cell of the grid.

    Attributes:
        cell: the one suggested.
        gamma_reason: why this γ.
        alpha_reason: why this α.
    """

    cell: LabCell
    gamma_reason: str
    alpha_reason: str


def fixed_alpha(alphas: Sequence[float | None]) -> float | None:
    """The α at which γ is chosen: the one of the grid that is nearest to the paper's 0.25."""
    numbers = [alpha for alpha in alphas if alpha is not None]
    return min(numbers, key=lambda alpha: abs(alpha - 0.25)) if numbers else None


def suggest(cells: Sequence[LabCell]) -> Suggestion:
    """γ first with α fixed, then α.

    γ is there to take the easy negatives away, and what it takes beyond that it gives to the
    hardest, wrong labels among them: hence the smallest γ that leaves easy negatives at most
    `EASY_LIMIT` of the gradient, among those at which wrong labels draw at most `NOISE_LIMIT`. α
    then balances what γ leaves: the one that brings the positives nearest to half of the gradient.
    """
    alpha = fixed_alpha([cell.alpha for cell in cells])
    column = sorted((cell for cell in cells if cell.alpha == alpha), key=lambda cell: cell.gamma)
    start, gamma_reason = _choose_gamma(column)
    row = [cell for cell in cells if cell.gamma == start.gamma]
    balanced = min(row, key=lambda cell: abs(cell.gradient.positives - 0.5))
    alpha_reason = (
        f"with α = {shown(balanced.alpha)} positives draw {balanced.gradient.positives:.0%} of the "
        "gradient, the nearest to half"
    )
    return Suggestion(balanced, gamma_reason, alpha_reason)


def _choose_gamma(column: Sequence[LabCell]) -> tuple[LabCell, str]:
    """The cell of the chosen γ among those of one α, γ rising."""
    robust = [cell for cell in column if cell.noise_share <= NOISE_LIMIT]
    at = f"at α = {shown(column[0].alpha)}"
    if not robust:
        calmest = min(column, key=lambda cell: cell.noise_share)
        return calmest, (
            f"{at} wrong labels on {NOISE_RATE:.0%} of the objects draw more than "
            f"{NOISE_LIMIT:.0%} of the gradient at every γ; γ = {calmest.gamma:g} has the least, "
            f"{calmest.noise_share:.0%}"
        )
    enough = [cell for cell in robust if cell.gradient.easy_negatives <= EASY_LIMIT]
    if not enough:
        best = min(robust, key=lambda cell: cell.gradient.easy_negatives)
        return best, (
            f"{at} no γ of the grid takes easy negatives below {EASY_LIMIT:.0%} of the gradient "
            f"while wrong labels stay below {NOISE_LIMIT:.0%}; γ = {best.gamma:g} comes nearest, "
            f"with {best.gradient.easy_negatives:.0%}"
        )
    chosen = enough[0]
    return chosen, (
        f"{at} γ = {chosen.gamma:g} is the smallest that leaves easy negatives at most "
        f"{EASY_LIMIT:.0%} of the gradient ({chosen.gradient.easy_negatives:.1%}); wrong labels on "
        f"{NOISE_RATE:.0%} of the objects would draw {chosen.noise_share:.0%} of it"
    )


CAVEAT = (
    "This is about the gradient at this checkpoint, not about where a training with another loss "
    "would go: 'retina tune' finds that out. Trained to its end, a detector has positives near "
    "half of the gradient for the very loss it was trained with: α is then the one that keeps the "
    "balance when γ changes, and an early checkpoint tells more."
)
