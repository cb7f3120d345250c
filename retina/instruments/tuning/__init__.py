"""Tuning the focal loss by short real runs: γ first with α fixed, then α."""

from retina.instruments.tuning.grid import Cell, GridConfig
from retina.instruments.tuning.search import Tuning, TuningResult

__all__ = ["Cell", "GridConfig", "Tuning", "TuningResult"]
