"""Retina: RetinaNet, a dense single-stage object detector that can be trusted.

What `__all__` lists is the public API; everything else may change between two versions. Names are
imported when they are first used (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retina import losses as losses
    from retina.experiment.config import load_experiment as load_experiment
    from retina.experiment.running import evaluate as evaluate
    from retina.experiment.running import train as train
    from retina.prediction.predictor import Predictor as Predictor
    from retina.prediction.predictor import load as load
    from retina.prediction.torchvision_import import load_torchvision as load_torchvision
    from retina.structures import Categories as Categories
    from retina.structures import Detections as Detections

__all__ = [
    "Categories",
    "Detections",
    "Predictor",
    "evaluate",
    "load",
    "load_experiment",
    "load_torchvision",
    "losses",
    "train",
]

_HOMES = {
    "Categories": "retina.structures",
    "Detections": "retina.structures",
    "Predictor": "retina.prediction.predictor",
    "evaluate": "retina.experiment.running",
    "load": "retina.prediction.predictor",
    "load_experiment": "retina.experiment.config",
    "load_torchvision": "retina.prediction.torchvision_import",
    "train": "retina.experiment.running",
}


def __getattr__(name: str) -> Any:
    if name == "losses":
        return importlib.import_module("retina.losses")
    if name not in _HOMES:
        raise AttributeError(f"module 'retina' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
