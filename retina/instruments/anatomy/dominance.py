"""Notices when easy negatives drown everything else in a training."""

from __future__ import annotations

from collections import deque
from typing import Any

from retina.instruments.anatomy.elements import FocalSetting
from retina.instruments.anatomy.result import Breakdown

DOMINANT = 0.4
"""Share of the gradient (its L1 norm) above which easy negatives dominate.

Where the biases of the classes are at rest, background and foreground pull equally hard: half the
gradient is the background's, whatever γ and α are. So this share says that easy negatives do four
fifths of the background's part, and hard ones hardly count. (A share of the loss could not tell:
the positives' loss is the larger the rarer they are, and hides what the gradient does.)"""

REPORTS_IN_A_ROW = 3
"""One batch may have an image full of background."""

WARM_UP = 0.1
"""Share of the training before which nothing is said: until something is learned, every negative
has the prior's p_t and is easy."""


class DominanceWatch:
    """Warns once in a training in which easy negatives dominate the gradient.

    Args:
        parameters: of the loss, for the advice.
        total_steps: of the whole training.
    """

    def __init__(self, parameters: FocalSetting, total_steps: int) -> None:
        self._parameters = parameters
        self._first_step = WARM_UP * total_steps
        self._shares: deque[float] = deque(maxlen=REPORTS_IN_A_ROW)
        self._has_warned = False

    def state_dict(self) -> dict[str, Any]:
        """The last shares, and whether the warning was given."""
        return {"shares": list(self._shares), "has_warned": self._has_warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._shares = deque(state["shares"], maxlen=REPORTS_IN_A_ROW)
        self._has_warned = bool(state["has_warned"])

    def update(self, step: int, overall: Breakdown) -> str | None:
        """Take in a report; the warning, where this is the one that makes it due."""
        if self._has_warned or step <= self._first_step:
            return None
        self._shares.append(overall.easy_negatives.gradient_share)
        if len(self._shares) < REPORTS_IN_A_ROW or min(self._shares) <= DOMINANT:
            return None
        self._has_warned = True
        return (
            f"easy negatives (p_t > 0.9) dominate: {min(self._shares):.0%} of the classification "
            f"loss's gradient or more in {REPORTS_IN_A_ROW} reports in a row, now "
            f"{overall.easy_negatives.loss_share:.0%} of the loss ({self._parameters}). "
            f"{self._advice()} See docs/loss-anatomy.md"
        )

    def _advice(self) -> str:
        gamma = self._parameters.gamma
        if isinstance(gamma, float | int) and gamma < 2:
            return (
                f"Raise objective.classification.gamma (now {gamma:g}; 2 is the paper's), and keep "
                "model.head.prior_probability small (0.01)."
            )
        return (
            "With this γ that means that hardly any positive is learned: look at the levels and "
            "classes with 'retina loss anatomy', and whether the anchors fit the objects; then "
            "raise objective.classification.alpha, or gamma."
        )
