"""What a prediction can leave in its folder; a new kind is one more entry of one of the lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from retina.datasets.exports import WRITERS
from retina.prediction.outputs.crops import Crops
from retina.prediction.outputs.data_sets import write_csv_set, write_set
from retina.prediction.outputs.images import ImageFiles, ImageOutput, Place, PredictedImage
from retina.prediction.outputs.json_file import write_json
from retina.prediction.outputs.pictures import Pictures
from retina.prediction.outputs.results import Results

__all__ = [
    "DATA_SETS",
    "DEFAULT",
    "IMAGE_OUTPUTS",
    "KINDS",
    "RUN_OUTPUTS",
    "ImageFiles",
    "ImageOutput",
    "Place",
    "PredictedImage",
    "Results",
]

IMAGE_OUTPUTS: Mapping[str, Callable[[Place], ImageOutput]] = {
    "pictures": Pictures,
    "crops": Crops,
}
"""What is written about every image while the others are still predicted on."""

DATA_SETS: Mapping[str, Callable[[Results], None]] = {
    **{name: partial(write_set, name) for name in WRITERS},
    "csv": write_csv_set,
}
"""The formats of data sets: labels to begin with, for people who annotate."""

RUN_OUTPUTS: Mapping[str, Callable[[Results], None]] = {"json": write_json, **DATA_SETS}
"""What is written about all images together, once they are predicted on."""

KINDS = (*IMAGE_OUTPUTS, *RUN_OUTPUTS)
DEFAULT = ("pictures", "json")
