"""An experiment: its configuration, and the one place where its parts are put together."""

from retina.experiment.building import Experiment, build_experiment
from retina.experiment.config import ExperimentConfig, load_experiment
from retina.experiment.data import (
    DataOptions,
    ResolvedData,
    is_config,
    resolve_data,
    resolve_splits,
)
from retina.experiment.parts import build_dataset, build_detector, build_evaluator
from retina.experiment.running import evaluate, train

__all__ = [
    "DataOptions",
    "Experiment",
    "ExperimentConfig",
    "ResolvedData",
    "build_dataset",
    "build_detector",
    "build_evaluator",
    "build_experiment",
    "evaluate",
    "is_config",
    "load_experiment",
    "resolve_data",
    "resolve_splits",
    "train",
]
