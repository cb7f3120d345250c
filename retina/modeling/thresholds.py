"""From which score on a detection is shown to people, and how that was chosen.

This is another thing than ``postprocess.score_threshold``: below that one nothing is found at all,
and it is low, because average precision wants every detection.

Letters: K classes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from retina.configuration import Config

DEFAULT_THRESHOLD = 0.3
"""Where no annotated image has told a better one."""

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class ReachedConfig(Config):
    """What a threshold reached on the images that it was chosen on; null: nothing to divide by."""

    precision: Score | None
    """The share of what is shown that is right."""
    recall: Score | None
    """The share of the objects that is found."""
    f1: Score | None
    """The harmonic mean of the two."""
    false_alarms_per_image: Annotated[float, Field(ge=0.0)]
    """Detections that have found nothing, per image."""


class ThresholdOrigin(Config):
    """How thresholds were chosen."""

    rule: str
    """For people, say ``best F1``."""
    iou: Score
    """From which overlap on a detection has found an object."""
    date: str | None = None
    """The day, ``YYYY-MM-DD``; null for those that a training chose itself."""
    data: str
    """The data set that they were chosen on, as it was named."""
    num_images: Annotated[int, Field(ge=0)]
    """Of it."""
    num_objects: Annotated[int, Field(ge=0)]
    """That were to be found there."""
    reached: ReachedConfig
    """By all classes together, each at its threshold."""
    per_class: tuple[ReachedConfig, ...] | None = None
    """The same of each class, in the order of the labels."""


class ThresholdsConfig(Config):
    """The scores from which on detections are shown, where people name none themselves."""

    common: Score = DEFAULT_THRESHOLD
    """Of every class that has no threshold of its own."""
    per_class: tuple[Score | None, ...] | None = None
    """Of each class, in the order of the labels; null: the common one."""
    origin: ThresholdOrigin | None = None
    """How they were chosen; null: they are the default, or of a file that does not say it."""

    def of_classes(self, num_classes: int) -> Tensor:
        """``(K,)`` float64: the threshold of each class."""
        own = self.per_class if self.per_class is not None else (None,) * num_classes
        values = [self.common if value is None else value for value in own]
        return torch.tensor(values, dtype=torch.float64)

    def misfit(self, num_classes: int) -> str | None:
        """What does not fit a detector of so many classes, or None."""
        reached = None if self.origin is None else self.origin.per_class
        for what, values in (("thresholds", self.per_class), ("classes of the origin", reached)):
            if values is not None and len(values) != num_classes:
                return f"{len(values)} {what} for {num_classes} classes"
        return None
