"""Assigners, which say what object each anchor answers for, and the list of their configs."""

from typing import Annotated

from retina.configuration import OneOf
from retina.objective.assignment.assigner import Assigner, AssignerConfig
from retina.objective.assignment.atss import ATSSConfig
from retina.objective.assignment.max_iou import MaxIoUConfig

AnyAssignerConfig = Annotated[
    AssignerConfig,
    OneOf(
        MaxIoUConfig,
        ATSSConfig,
    ),
]
"""An assigner of any kind."""

__all__ = ["ATSSConfig", "AnyAssignerConfig", "Assigner", "AssignerConfig", "MaxIoUConfig"]
