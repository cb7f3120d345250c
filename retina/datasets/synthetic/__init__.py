"""The embedded data set: synthetic scenes that stand in where no data set is at hand."""

from retina.datasets.synthetic.planning import CATEGORIES
from retina.datasets.synthetic.writer import GenerationReport, generate_dataset

__all__ = ["CATEGORIES", "GenerationReport", "generate_dataset"]
