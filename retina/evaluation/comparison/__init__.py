"""Comparing evaluations: is the new detector really better, and where?"""

from retina.evaluation.comparison.comparison import NUM_RESAMPLES, Comparison, compare
from retina.evaluation.comparison.page import write_comparison
from retina.evaluation.comparison.sides import (
    Side,
    SideSource,
    find_sides,
    read_sides,
    recorded_truth,
    shared_truth,
)

__all__ = [
    "NUM_RESAMPLES",
    "Comparison",
    "Side",
    "SideSource",
    "compare",
    "find_sides",
    "read_sides",
    "recorded_truth",
    "shared_truth",
    "write_comparison",
]
