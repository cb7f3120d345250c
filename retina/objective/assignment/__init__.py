"""Assigners: which object, if any, each anchor answers for."""

from typing import Annotated, Protocol

from pydantic import Field

from retina.objective.assignment.atss import ATSSAssigner, ATSSConfig
from retina.objective.assignment.max_iou import MaxIoUAssigner, MaxIoUConfig
from retina.structures import Anchors, Assignment, BatchedTargets


class Assigner(Protocol):
    """Anything that turns anchors and objects into an assignment."""

    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """The assignment of every anchor in every image of the batch."""
        ...


AssignerConfig = Annotated[MaxIoUConfig | ATSSConfig, Field(discriminator="kind")]

__all__ = [
    "ATSSAssigner",
    "ATSSConfig",
    "Assigner",
    "AssignerConfig",
    "MaxIoUAssigner",
    "MaxIoUConfig",
]
