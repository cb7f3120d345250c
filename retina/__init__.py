"""Retina: RetinaNet, a dense single-stage object detector that can be trusted.

Names are imported when they are first used (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retina.prediction.predictor import Predictor as Predictor
    from retina.prediction.predictor import load as load
    from retina.prediction.torchvision_import import load_torchvision as load_torchvision
    from retina.structures import Categories as Categories
    from retina.structures import Detections as Detections

_EXPORTS = {
    "Categories": "retina.structures",
    "Detections": "retina.structures",
    "Predictor": "retina.prediction.predictor",
    "load": "retina.prediction.predictor",
    "load_torchvision": "retina.prediction.torchvision_import",
}

__all__ = ["Categories", "Detections", "Predictor", "load", "load_torchvision"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'retina' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
