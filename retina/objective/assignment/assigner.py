"""What every assigner is to the rest of the code: a callable, and its config."""

from __future__ import annotations

from abc import ABC, abstractmethod

from retina.configuration import Config
from retina.structures import Anchors, Assignment, BatchedTargets


class Assigner(ABC):
    """Turns anchors and objects into an assignment."""

    foreground_iou: float | None = None
    """The IoU from which an anchor is foreground, whatever the object; None where the rule adapts
    to each object, so that no foreground anchor is a low-quality match."""

    @abstractmethod
    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """The assignment of the ``(B, R)`` anchors of a batch; does not wait for the device."""


class AssignerConfig(Config, ABC):
    """The config of an assigner.

    A new assigner derives from it in a file of its own, with ``kind: Literal["..."] = "..."``, its
    settings and `build`, and gets one line in the list of ``__init__.py``.
    """

    kind: str

    @abstractmethod
    def build(self) -> Assigner:
        """The assigner with these settings."""
