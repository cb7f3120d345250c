"""A trained detector, ready for images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from retina.artifact import Artifact
from retina.datasets.dataset import Image
from retina.datasets.images import decode_image
from retina.datasets.large_tiff import LargeTiff, open_large_tiff
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.errors import UserError, count_given, list_given
from retina.geometry.fusion import Merge
from retina.modeling.detector_names import detector_given
from retina.modeling.inference_form import usual_form
from retina.prediction.detectors import load_runtime
from retina.prediction.given_images import ImageSource, as_large, as_tensor, listed
from retina.runtime import Runtime, TiledRuntime, TorchRuntime, Views
from retina.runtime.tiled import OVERLAP
from retina.runtime.views import MOST_OVERLAP, SMALLEST_TILE, parse_test_time
from retina.structures import Categories, Detections

MEMORY_FIX = "lower the batch size (--batch-size), or look at tiles (--tile)"
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
        compiled: bool = False,
    ) -> Self:
        """A saved detector, run by PyTorch; arguments and errors as in `load`."""
        where = pick_device(str(device))
        chosen = pick_precision(precision, where)
        return cls(
            TorchRuntime.from_artifact(
                artifact,
                device=where,
                precision=chosen,
                form=usual_form(chosen, compiled=compiled),
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
            self.thresholds
            if score_threshold is None
            else _within(score_threshold, "score_threshold", 1)
        )
        batch_size = count_given(batch_size, "batch_size", least=1)
        given = listed(images)
        found: list[Detections] = []
        for start in range(0, len(given), batch_size):
            few = {f"images[{row}]": given[row] for row in range(len(given))[start:][:batch_size]}
            if isinstance(self.runtime, TiledRuntime):
                found += self.runtime.detect([as_large(few[name], name) for name in few])
            else:
                found += self.runtime.detect([as_tensor(few[name], name) for name in few])
        return [detections.at_least(threshold) for detections in found]

    def with_views(
        self,
        *,
        tile: int | None = None,
        overlap: float = OVERLAP,
        full_image: bool = True,
        test_time: str | Sequence[str | float] = (),
        merge: Merge = "nms",
        batch_size: int = 8,
    ) -> Predictor:
        """The same detector, looking at each image in more than one view.

        Args:
            tile: look at overlapping tiles with sides of so many pixels, for small objects in
                large images. An image that is no larger is not cut. Of a large TIFF that is given
                by its path a tile at a time is read.
            overlap: the part of a tile that its neighbour sees as well.
            full_image: look at the whole of a tiled image, too, for objects larger than a tile.
            test_time: look at everything mirrored (``"flip"``) and at other scales (0.8), too; a
                text alone is a list of one.
            merge: ``"nms"`` keeps the best box of an object, ``"weighted"`` takes the mean of all.
            batch_size: tiles that the network sees at a time.

        Raises:
            UserError: an argument is not as it should be.
        """
        parts = [test_time] if isinstance(test_time, str) else list_given(test_time, "test_time")
        flip, scales = parse_test_time(parts, "test_time")
        batch_size = count_given(batch_size, "batch_size", least=1)
        if not isinstance(merge, str):
            raise UserError(f"merge: {merge!r} is no text; give 'nms' or 'weighted'")
        views = Views(
            tile=None if tile is None else count_given(tile, "tile", least=SMALLEST_TILE),
            overlap=_within(overlap, "overlap", MOST_OVERLAP),
            full_image=full_image,
            flip=flip,
            scales=scales,
            merge=merge,
        )
        return self.looking_at(views, batch_size=batch_size)

    def looking_at(self, views: Views, *, batch_size: int) -> Predictor:
        """The same for views that are put together; errors as in `Views.wrap`."""
        return Predictor(views.wrap(self.runtime, batch_size=batch_size))

    def read(self, path: Path) -> Image | LargeTiff:
        """An image file as `predict` takes it: whole, or to be read by parts where it is tiled.

        Raises:
            UnreadableImageError: it cannot be read.
        """
        large = open_large_tiff(path) if isinstance(self.runtime, TiledRuntime) else None
        return decode_image(path) if large is None else large


def _within(number: float, argument: str, most: float) -> float:
    """A number from 0 to ``most``; whatever else is given is a UserError."""
    if isinstance(number, bool) or not isinstance(number, int | float | np.number):
        raise UserError(f"{argument}: {number!r} is no number; give one from 0 to {most:g}")
    if not 0 <= number <= most:
        raise UserError(f"{argument}: {number} does not lie within 0 … {most:g}")
    return float(number)


def load(
    path: Path | str,
    *,
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "fp32",
    compiled: bool = False,
) -> Predictor:
    """Load a detector file (``best.safetensors``), an exported or a published detector.

    Args:
        path: the file, also one that ``retina export`` has written; or ``"coco_v1"`` or
            ``"coco_v2"``, torchvision's RetinaNets for COCO, which torchvision fetches once.
        device: ``auto`` picks CUDA, then MPS, then the CPU.
        precision: of the network; ``auto`` takes bf16 where it is fast. An export has
            its own.
        compiled: compile the network on this machine, which takes the first images of each of
            the first few sizes up to a minute. It needs a compiler.

    Raises:
        UserError: the file is missing, empty, damaged or no detector of this project, or the
            published one cannot be fetched.
    """
    return Predictor(
        load_runtime(
            detector_given(path, "path"),
            device=str(device),
            precision=precision,
            compiled=compiled,
            memory_fix=MEMORY_FIX,
        )
    )
