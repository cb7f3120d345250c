"""What all exported detectors have in common when they are run.

Letters: B images of one size, D rows of output.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from retina.devices import explaining_out_of_memory
from retina.errors import UserError
from retina.modeling.preprocess import Preprocess, size_of
from retina.runtime.description import ExportDescription
from retina.runtime.runtime import Runtime
from retina.structures import Detections, Size


class ExportedRuntime(Runtime):
    """An exported file: its graph takes resized images and gives detections.

    Images of one size are one call, since a graph knows one size for all; so an image is judged as
    `TorchRuntime` judges it among images of its size.

    Args:
        path: of the file.
        description: what it says about itself.
        max_detections: of an image; None for as many as the file gives.

    Attributes:
        memory_fix: what the error says to do where memory runs out.

    Raises:
        UserError: the file cannot give so many detections.
    """

    kind: ClassVar[str]
    """What the format is called, for people."""

    def __init__(
        self, path: Path, description: ExportDescription, *, max_detections: int | None = None
    ) -> None:
        config = description.detector
        self.path, self.description = path, description
        self.categories = config.categories.build()
        self.preprocess = config.preprocess.build()
        self.thresholds_config = config.thresholds
        self.thresholds = config.thresholds.of_classes(len(self.categories))
        rule = config.postprocess
        if max_detections is not None:
            if max_detections > rule.max_detections and not description.raw:
                raise UserError(
                    f"{path}: gives at most {rule.max_detections} detections of an image, not "
                    f"{max_detections}; lower --max-detections, or take the detector file"
                )
            rule = rule.model_copy(update={"max_detections": max_detections})
        self.max_detections = rule.max_detections
        self.memory_fix = "lower the batch size (--batch-size)"
        self._postprocess = rule.build(config.model.box_coder.build())

    @classmethod
    @abstractmethod
    def load(cls, path: Path, *, device: str = "auto", max_detections: int | None = None) -> Self:
        """Read the file; see `retina.runtime.files.load_export`."""

    @classmethod
    @abstractmethod
    def check_device(cls, path: Path, device: str) -> None:
        """See `retina.runtime.files.check_device`."""

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`.

        Raises:
            UserError: an image is of a size that the file does not take.
        """
        found: dict[int, Detections] = {}
        for size, rows in rows_by_input_size(self.preprocess, images).items():
            refuse_other_size(
                self.path, self.description.size, self.preprocess, size_of(images[rows[0]])
            )
            for some in self._calls(rows):
                pixels = torch.stack([self.preprocess.resize(images[row]) for row in some])
                for row, one in zip(some, self._detections(pixels), strict=True):
                    found[row] = one.rescaled(size, size_of(images[row]))
        return [found[row] for row in range(len(images))]

    def at_scale(self, factor: float) -> Runtime:
        """See `Runtime`; the graph is shared."""
        if self.description.size is not None:
            return super().at_scale(factor)
        scaled = copy.copy(self)
        scaled.preprocess = self.preprocess.scaled(factor)
        return scaled

    @abstractmethod
    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs, in its order and in host memory.

        Args:
            images: ``(B, 3, H, W)`` float32 RGB in 0 … 255, in host memory.
        """

    def _detections(self, pixels: Tensor) -> list[Detections]:
        count, batch = len(pixels), self.description.batch
        if batch is not None and count < batch:
            pixels = torch.cat([pixels, pixels.new_zeros(batch - count, *pixels.shape[1:])])
        with explaining_out_of_memory(lambda: self._too_large(pixels)):
            outputs = self.run(pixels)
        if self.description.raw:
            size = int(pixels.shape[2]), int(pixels.shape[3])
            boxes, scores, labels = (output[:count] for output in outputs)
            return [
                self._postprocess.select(*one, size=size)
                for one in zip(boxes, scores, labels, strict=True)
            ]
        boxes, scores, labels, counts = outputs
        ends = counts.clamp(max=self.max_detections).tolist()[:count]
        return [
            Detections(boxes[row, :end], scores[row, :end], labels[row, :end])
            for row, end in enumerate(ends)
        ]

    def _calls(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        step = self.description.batch or len(rows)
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    def _too_large(self, pixels: Tensor) -> str:
        shape = " × ".join(map(str, pixels.shape))
        return f"{self.path}: out of memory with a batch of {shape}; {self.memory_fix}"


def refuse_other_size(path: Path, fixed: Size | None, preprocess: Preprocess, size: Size) -> None:
    """Refuse an image that is not resized to the one size that a graph takes.

    Args:
        path: of the export.
        fixed: (height, width) that its graph takes; None for any.
        preprocess: of the detector.
        size: of the image as it is.

    Raises:
        UserError: the graph takes no such image.
    """
    resized = preprocess.input_size(size)
    if fixed is not None and resized != fixed:
        raise UserError(
            f"{path}: takes only images that are resized to {fixed[0]} × {fixed[1]} (height × "
            f"width), one of {size[0]} × {size[1]} is resized to {resized[0]} × {resized[1]}; "
            f"export without --size, or with --size {size[0]}x{size[1]}"
        )


def rows_by_input_size(preprocess: Preprocess, images: Sequence[Tensor]) -> dict[Size, list[int]]:
    """Which images are resized to the same size.

    Raises:
        UserError: a resized image is larger than ``pad_to``.
    """
    found: dict[Size, list[int]] = {}
    for row, image in enumerate(images):
        size = preprocess.input_size(size_of(image))
        preprocess.input_shape([size_of(image)])  # refuses what is too large
        found.setdefault(size, []).append(row)
    return found


def missing_package(package: str, what: str) -> UserError:
    """The error where a package of the extra ``export`` is missing."""
    return UserError(f"{what} needs the package {package}; pip install 'retina-detector[export]'")
