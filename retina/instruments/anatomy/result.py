"""The anatomy of a classification loss: who makes up how much of it and of its gradient.

Letters: L levels, K classes, N bins of the logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.instruments.anatomy.elements import FocalSetting
from retina.structures import FloatArray

GROUPS = ("easy_negatives", "other_negatives", "positives")
"""Every anchor and class is in one: a negative is easy where p_t > 0.9, and a positive is the own
class of a foreground anchor (its other classes are negatives)."""

_BINS_PER_BAR = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One group's contribution.

    Attributes:
        count: anchors × classes.
        loss: summed, before it is divided by the normalizer.
        gradient_l1: the sum of |∂loss/∂logit|.
        gradient_l2: the Euclidean norm of ∂loss/∂logit.
        loss_share: of the loss of all groups, 0..1.
        gradient_share: of ``gradient_l1`` of all groups; these add up to 1.
        gradient_square_share: of ``gradient_l2`` squared, which adds up to 1 where the norms do
            not.
    """

    count: int
    loss: float
    gradient_l1: float
    gradient_l2: float
    loss_share: float
    gradient_share: float
    gradient_square_share: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The three groups of one level, one class, or everything."""

    easy_negatives: Part
    other_negatives: Part
    positives: Part

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """In the order of `GROUPS`."""
        return self.easy_negatives, self.other_negatives, self.positives

    @property
    def loss(self) -> float:
        """Of the three together."""
        return sum(part.loss for part in self.parts)


@dataclass(frozen=True, slots=True)
class ProbabilityHistogram:
    """How many elements have which p_t, in bins of equal width of its logit.

    Equal widths of the logit, since nearly everything has a p_t close to 0 or 1: the bins get
    narrower there as fast as the loss changes.

    Attributes:
        logit_edges: ``(M + 1,)`` of log(p_t / (1 - p_t)), rising; the outer bins are open.
        negatives: ``(M,)`` counts.
        positives: ``(M,)`` counts.
    """

    logit_edges: FloatArray
    negatives: FloatArray
    positives: FloatArray


@dataclass(frozen=True)
class LossAnatomy:
    """What `AnatomyMeter` has added up.

    Attributes:
        level_names: L names, finest first.
        class_names: K names.
        parameters: of the loss.
        num_images: that were looked at.
        sums: ``(L, K, 3, 4)`` count, loss, |gradient| and its square, by group.
        counts: ``(L, 2, N)`` of negatives and positives by the logit z for the wrong side, rising.
        logit_sums: ``(L, 2, N)`` the sum of z in each bin.
        limit: the bins share ±limit evenly, the outer ones are open.
    """

    level_names: tuple[str, ...]
    class_names: tuple[str, ...]
    parameters: FocalSetting
    num_images: int
    sums: FloatArray
    counts: FloatArray
    logit_sums: FloatArray
    limit: float

    def overall(self) -> Breakdown:
        """Over all anchors and classes."""
        return _breakdown(self.sums.sum(axis=(0, 1)))

    def per_level(self) -> tuple[Breakdown, ...]:
        """In the order of ``level_names``."""
        return tuple(map(_breakdown, self.sums.sum(axis=1)))

    def per_class(self) -> tuple[Breakdown, ...]:
        """In the order of ``class_names``."""
        return tuple(map(_breakdown, self.sums.sum(axis=0)))

    def histogram(self, level: int | None = None) -> ProbabilityHistogram:
        """Of p_t, on one level or all of them."""
        counts = self.counts.sum(axis=0) if level is None else self.counts[level]
        # The logit of p_t is -z: the bins turn around.
        bars = counts.reshape(2, -1, _BINS_PER_BAR).sum(axis=2)[:, ::-1]
        edges = np.linspace(-self.limit, self.limit, bars.shape[1] + 1)
        return ProbabilityHistogram(logit_edges=edges, negatives=bars[0], positives=bars[1])


def _breakdown(sums: FloatArray) -> Breakdown:
    """The shares that ``(3, 4)`` sums come to, a row for each of `GROUPS`."""
    totals = sums.sum(axis=0)
    shares = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
    return Breakdown(
        *(
            Part(
                count=int(row[0]),
                loss=float(row[1]),
                gradient_l1=float(row[2]),
                gradient_l2=float(np.sqrt(row[3])),
                loss_share=float(share[1]),
                gradient_share=float(share[2]),
                gradient_square_share=float(share[3]),
            )
            for row, share in zip(sums, shares, strict=True)
        )
    )
