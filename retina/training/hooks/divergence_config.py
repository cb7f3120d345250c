"""What a training does when a step is not finite."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retina.configuration import Config

Count = Annotated[int, Field(ge=1)]


class StopConfig(Config):
    """End the training; the last checkpoint is from before the step."""

    kind: Literal["stop"] = "stop"


class SkipConfig(Config):
    """Go on without the step, as if its images had not been there."""

    kind: Literal["skip"] = "skip"
    max_skips: Count = 10
    """After so many steps were left out, over the whole run, the next one ends the training."""


class RewindConfig(Config):
    """Go back to the last checkpoint, and on with a lower learning rate."""

    kind: Literal["rewind"] = "rewind"
    lr_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """What the learning rate of the rest of the training is multiplied by, each time."""
    max_rewinds: Count = 3
    """After so many times the next one ends the training."""


DivergencePolicy = Annotated[StopConfig | SkipConfig | RewindConfig, Field(discriminator="kind")]
