"""A trained detector, ready for images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from retina.artifact import Artifact
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.errors import UserError, count_given
from retina.modeling.detector_names import detector_given
from retina.prediction.detectors import load_runtime
from retina.prediction.given_images import ImageSource, as_tensor, listed
from retina.runtime import Runtime, TorchRuntime
from retina.structures import Categories, Detections

MEMORY_FIX = "lower the batch size (--batch-size), or cut the images into tiles"
"""What to do where memory runs out."""


class Predictor:
    """Finds objects in images.

    Attributes:
        runtime: finds the objects.
        categories: the classes; `Detections.labels` index their names.
        thresholds: ``(K,)`` float64, the score from which on a detection of each class is worth
            showing: as ``retina thresholds`` has chosen them, else as the training has by the best
            F1 on its validation set, else 0.3.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.categories: Categories = runtime.categories
        self.thresholds: torch.Tensor = runtime.thresholds

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        device: str | torch.device = "auto",
        precision: PrecisionChoice = "fp32",
    ) -> Self:
        """A saved detector, run by PyTorch; arguments and errors as in `load`."""
        where = pick_device(str(device))
        return cls(
            TorchRuntime.from_artifact(
                artifact,
                device=where,
                precision=pick_precision(precision, where),
                memory_fix=MEMORY_FIX,
            )
        )

    def predict(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float | None = None,
        *,
        batch_size: int = 16,
    ) -> list[Detections]:
        """Detect objects in one image or many.

        Args:
            images: an image, a list of images, or a batch (an array or a tensor of four
                dimensions). An image is the path of a file; a Pillow image; a uint8 array
                ``(height, width, 3)`` in RGB order, grey ``(height, width)`` or RGBA ``(height,
                width, 4)``; or a tensor ``(C, height, width)``, uint8 or float in 0 … 1, of 3, 1 or
                4 channels. Alpha is dropped, and EXIF orientation applied, as in files.
            score_threshold: keep detections of at least this score; None takes ``thresholds``, of
                each class its own. Below ``postprocess.score_threshold`` (0.05 as a rule) nothing
                is found.
            batch_size: how many images the network sees at a time, padded to one size.

        Returns:
            A list with one `Detections` per image, also of a single image: in pixels of the image,
            highest score first.

        Raises:
            UserError: an image cannot be read or is none, or another argument is not as it should
                be; the message says which image by its position.
            RunError: memory ran out.
        """
        threshold = (
            self.thresholds if score_threshold is None else _checked_threshold(score_threshold)
        )
        batch_size = count_given(batch_size, "batch_size", least=1)
        given = listed(images)
        found: list[Detections] = []
        for start in range(0, len(given), batch_size):
            rows = range(start, min(start + batch_size, len(given)))
            found += self.runtime.detect([as_tensor(given[row], f"images[{row}]") for row in rows])
        return [detections.at_least(threshold) for detections in found]


def _checked_threshold(threshold: float) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise UserError(f"score_threshold: {threshold!r} is no number; give one from 0 to 1")
    if not 0 <= threshold <= 1:
        raise UserError(f"score_threshold: {threshold} does not lie within 0 … 1")
    return float(threshold)


def load(
    path: Path | str,
    *,
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "fp32",
) -> Predictor:
    """Load a detector file (``best.safetensors``), an exported or a published detector.

    Args:
        path: the file, also one that ``retina export`` has written; or ``"coco_v1"`` or
            ``"coco_v2"``, torchvision's RetinaNets for COCO, which torchvision fetches once.
        device: ``auto`` picks CUDA, then MPS, then the CPU.
        precision: of the network; ``auto`` takes bf16 where the hardware multiplies it. An export
            has its own.

    Raises:
        UserError: the file is missing, empty, damaged or no detector of this project, or the
            published one cannot be fetched.
    """
    return Predictor(
        load_runtime(
            detector_given(path, "path"),
            device=str(device),
            precision=precision,
            memory_fix=MEMORY_FIX,
        )
    )
