"""The search for anchors that fit an experiment's data, as ``retina data anchors`` makes it."""

from __future__ import annotations

from dataclasses import dataclass

from retina.errors import UserError
from retina.instruments.doctor.anchor_fit import proposed, sampled
from retina.instruments.doctor.coverage.fitting import AnchorProposal, best_proposal
from retina.instruments.doctor.subject import Subject

_BUDGET = 4 * 10**8
"""Overlaps of anchors and objects for each measured set; P2 has four times the anchors."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """The sets of anchors that were compared.

    Attributes:
        sets: as they are, fitted, and fitted with P2 where it is not there yet.
        best: the one to take.
        input_sizes: the ``(min_size, max_size)`` that they are measured at.
    """

    sets: tuple[AnchorProposal, ...]
    best: AnchorProposal
    input_sizes: tuple[tuple[int, int], ...]

    @property
    def current(self) -> AnchorProposal:
        """The anchors as they are."""
        return self.sets[0]


def propose(subject: Subject) -> Proposals:
    """Search and measure.

    Raises:
        UserError: there is no object to fit anchors to.
    """
    images = sampled(subject, _BUDGET)
    if not images or not any(len(image.targets) for image in images):
        raise UserError("no training image has an object to fit anchors to")
    sets = proposed(subject, images)
    return Proposals(sets, best_proposal(sets), subject.input_sizes)
