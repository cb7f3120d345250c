"""Detections as objects of other libraries, which are optional: the extra ``interchange``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retina.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv


def supervision_detections(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
) -> sv.Detections:
    """See `retina.structures.Detections.to_supervision`."""
    library = _library("supervision", "Detections.to_supervision")
    made: sv.Detections = library.Detections(
        xyxy=boxes,
        confidence=scores,
        class_id=labels,
        data={"class_name": np.array(names, dtype=object)[labels].astype(str)},
    )
    return made


def data_frame(columns: dict[str, Sequence[object] | npt.NDArray[Any]]) -> pd.DataFrame:
    """See `retina.structures.Detections.to_pandas`."""
    frame: pd.DataFrame = _library("pandas", "Detections.to_pandas").DataFrame(columns)
    return frame


def _library(name: str, method: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"{method} needs {name}, which is not installed: "
            "pip install 'retina-detector[interchange]'"
        ) from None
