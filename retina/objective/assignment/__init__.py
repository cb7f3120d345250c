"""Assigners: which object, if any, each anchor answers for. One file each, and their union."""

from typing import Annotated

from pydantic import Field

from retina.objective.assignment.assigner import Assigner, AssignerConfig
from retina.objective.assignment.atss import ATSSConfig
from retina.objective.assignment.max_iou import MaxIoUConfig

AnyAssignerConfig = Annotated[
    MaxIoUConfig | ATSSConfig,
    Field(discriminator="kind"),
]
"""Every kind that ``objective.assigner`` takes; a new one is one line here."""

__all__ = ["ATSSConfig", "AnyAssignerConfig", "Assigner", "AssignerConfig", "MaxIoUConfig"]
