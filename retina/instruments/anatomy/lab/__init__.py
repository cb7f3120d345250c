"""The loss lab: what other γ and α would make of the logits that a detector has."""

from retina.instruments.anatomy.lab.replay import LabCell, replay
from retina.instruments.anatomy.lab.sample import LabSample, take_sample

__all__ = ["LabCell", "LabSample", "replay", "take_sample"]
