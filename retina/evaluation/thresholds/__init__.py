"""From which score on detections are to be shown: operating points, and how sure they are.

The thresholds are found among all that there are, not on a grid. They are chosen on all images; how
much such a choice is worth on new ones is told by choosing on one half and looking at the other.
"""

from retina.evaluation.thresholds.choice import (
    ChosenPoint,
    OperatingPoint,
    Thresholds,
    choose_thresholds,
    count_at,
)
from retina.evaluation.thresholds.halves import HalvesCheck, check_on_halves
from retina.evaluation.thresholds.intervals import ThresholdIntervals, bootstrap_thresholds
from retina.evaluation.thresholds.kept import kept_thresholds, thresholds_of_training
from retina.evaluation.thresholds.outcomes import Outcomes, SplitOutcomes, match_split
from retina.evaluation.thresholds.rules import (
    BestF,
    LeastCost,
    LeastPrecision,
    LeastRecall,
    MostFalseAlarms,
    Rule,
)
from retina.evaluation.thresholds.study import ThresholdStudy, study_thresholds

__all__ = [
    "BestF",
    "ChosenPoint",
    "HalvesCheck",
    "LeastCost",
    "LeastPrecision",
    "LeastRecall",
    "MostFalseAlarms",
    "OperatingPoint",
    "Outcomes",
    "Rule",
    "SplitOutcomes",
    "ThresholdIntervals",
    "ThresholdStudy",
    "Thresholds",
    "bootstrap_thresholds",
    "check_on_halves",
    "choose_thresholds",
    "count_at",
    "kept_thresholds",
    "match_split",
    "study_thresholds",
    "thresholds_of_training",
]
