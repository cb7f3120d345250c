"""Loss anatomy: what a classification loss, and its gradient, are made of.

`measure_anatomy` runs a detector over a split; `AnatomyMeter` takes in batches of a training.
"""

from retina.instruments.anatomy.elements import FocalSetting
from retina.instruments.anatomy.meter import AnatomyMeter
from retina.instruments.anatomy.result import GROUPS, Breakdown, LossAnatomy

__all__ = ["GROUPS", "AnatomyMeter", "Breakdown", "FocalSetting", "LossAnatomy"]
