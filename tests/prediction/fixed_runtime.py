"""A runtime that finds the same objects in every image of a size, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.files import PredictionOptions, PredictionRun, predict_files
from retina.prediction.inputs import ImageFile, Input
from retina.prediction.predictor import Predictor
from retina.runtime import Runtime
from retina.structures import Categories, Detections


class TwoObjects(Runtime):
    """Finds a dog and a cat, at places that are no round numbers; nothing in a square image."""

    categories = Categories(("a dog", "cat/kitten", "cow"), (17, 3, 5))
    preprocess = PreprocessConfig().build()
    thresholds = torch.tensor([0.3, 0.3, 0.3]).double()

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        return [self.in_size(int(image.shape[1]), int(image.shape[2])) for image in images]

    def in_size(self, height: int, width: int) -> Detections:
        if height == width:
            return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
        boxes = torch.tensor(
            [[0.0, 0.0, width / 3, height / 7], [width * 0.37, height * 0.11, width, height]]
        )
        return Detections(boxes, torch.tensor([0.9, 0.31]), torch.tensor([1, 0]))


def save_image(path: Path, height: int, width: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = PIL.Image.linear_gradient("L").resize((width, height))
    PIL.Image.merge("RGB", (ramp, ramp.rotate(180), ramp)).save(path)
    return path


def predict(
    inputs: Sequence[Path | Input], out: Path, runtime: Runtime | None = None, **options: object
) -> PredictionRun:
    given = [ImageFile(one) if isinstance(one, Path) else one for one in inputs]
    chosen = PredictionOptions(**options)  # type: ignore[arg-type]
    run = predict_files(Predictor(runtime or TwoObjects()), given, out, options=chosen)
    assert run is not None
    return run
