"""A trained detector, ready for images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retina.artifact import Artifact, load_artifact
from retina.datasets.images import decode_image
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.errors import UserError
from retina.runtime import Runtime, TorchRuntime
from retina.structures import Categories, Detections

ImageSource = npt.NDArray[np.uint8] | Path | str


class Predictor:
    """Finds objects in images.

    Attributes:
        runtime: finds the objects.
        categories: the classes; `Detections.labels` index their names.
        display_threshold: score above which a detection is worth showing: the mean over the classes
            of the threshold of the best F1 on the validation set of the training, or 0.3 without.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.categories: Categories = runtime.categories
        self.display_threshold = runtime.display_threshold

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
                memory_fix="lower the batch size (--batch-size), or cut the images into tiles",
            )
        )

    def predict(
        self,
        images: Sequence[ImageSource],
        score_threshold: float | None = None,
        *,
        batch_size: int = 16,
    ) -> list[Detections]:
        """Detect objects.

        Args:
            images: uint8 RGB arrays ``(height, width, 3)``, or paths of image files.
            score_threshold: keep detections with a higher score; None keeps those above
                ``display_threshold``. Below the detector's own threshold (0.05 as a rule) nothing
                is found.
            batch_size: how many images the network sees at a time, padded to one size.

        Returns:
            One `Detections` per image, in pixels of the image, highest score first.

        Raises:
            UserError: an image file cannot be read.
            RunError: memory ran out.
            ValueError: an array is no uint8 RGB image.
        """
        threshold = self.display_threshold if score_threshold is None else score_threshold
        found: list[Detections] = []
        for start in range(0, len(images), batch_size):
            found += self.runtime.detect(
                [_as_tensor(image) for image in images[start : start + batch_size]]
            )
        return [detections.above(threshold) for detections in found]


def _as_tensor(image: ImageSource) -> Tensor:
    """``(3, h, w)`` uint8."""
    if isinstance(image, str | Path):
        image = decode_image(Path(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"an image must be a uint8 array (height, width, 3) in RGB order, this one is "
            f"{image.dtype} {image.shape}"
        )
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)


def load(
    path: Path | str,
    *,
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "fp32",
) -> Predictor:
    """Load a detector file (``best.safetensors``); nothing else is needed.

    Args:
        path: the file.
        device: ``auto`` picks CUDA, then MPS, then the CPU.
        precision: of the network; ``auto`` takes bf16 where the hardware multiplies it.

    Raises:
        UserError: the file is missing, empty, damaged or no detector of this project.
    """
    try:
        return Predictor.from_artifact(load_artifact(path), device=device, precision=precision)
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
