"""A detector that PyTorch runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from retina.artifact import Artifact
from retina.devices import Precision, autocast, dtype_of, explaining_out_of_memory
from retina.modeling.detector import RetinaNet
from retina.modeling.inference_form import InferenceForm, in_form
from retina.modeling.postprocess import Postprocess
from retina.modeling.preprocess import PreparedImages, Preprocess, size_of
from retina.modeling.thresholds import ThresholdsConfig
from retina.runtime.runtime import Runtime
from retina.structures import Anchors, Batch, Categories, DensePredictions, Detections, Size


@dataclass(frozen=True, slots=True)
class DenseOutput:
    """What the network says about images of several sizes.

    Attributes:
        predictions: at every anchor.
        anchors: what they are about, in pixels of the network's input.
        input_sizes: (height, width) of each image in that input, without the padding.
        image_sizes: (height, width) of each image as it was given.
    """

    predictions: DensePredictions
    anchors: Anchors
    input_sizes: tuple[Size, ...]
    image_sizes: tuple[Size, ...]


class TorchRuntime(Runtime):
    """Preprocessing, network and postprocessing, on one device.

    Whoever needs logits and anchors asks `forward` for them, and `detections` for what they become.

    Args:
        detector: on ``device``; in the mode after a call that it was in before.
        categories: the classes.
        preprocess: how images become the network's input, on ``device``.
        postprocess: how the network's output becomes detections.
        device: where to compute.
        precision: of the network's arithmetic; boxes and scores are always float32.
        memory_fix: what the error says to do where memory runs out.
        thresholds: from which scores on detections are shown to people.
    """

    def __init__(
        self,
        detector: RetinaNet,
        *,
        categories: Categories,
        preprocess: Preprocess,
        postprocess: Postprocess,
        device: torch.device,
        precision: Precision,
        memory_fix: str,
        thresholds: ThresholdsConfig | None = None,
    ) -> None:
        self.detector = detector
        self.categories = categories
        self.preprocess = preprocess
        self.postprocess = postprocess
        self.device = device
        self.precision: Precision = precision
        self.thresholds_config = thresholds or ThresholdsConfig()
        self.thresholds = self.thresholds_config.of_classes(len(categories))
        self._memory_fix = memory_fix

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        device: torch.device,
        precision: Precision = "fp32",
        form: InferenceForm = "plain",
        max_detections: int | None = None,
        memory_fix: str = "lower the batch size (--batch-size)",
    ) -> Self:
        """A saved detector on a device.

        Args:
            artifact: the detector.
            device: where to compute.
            precision: of the network's arithmetic.
            form: in which the network computes.
            max_detections: detections of an image that are made; None leaves it to the detector.
            memory_fix: what the error says to do where memory runs out.

        Raises:
            UserError: the weights do not fit the architecture, or there is no compiler.
        """
        config = artifact.config
        detector = in_form(artifact.build_detector(), form, dtype_of(precision), device)
        postprocess = config.postprocess
        if max_detections is not None:
            postprocess = postprocess.model_copy(update={"max_detections": max_detections})
        return cls(
            detector,
            categories=artifact.categories,
            preprocess=config.preprocess.build().to(device),
            postprocess=postprocess.build(detector.box_coder),
            device=device,
            precision=precision,
            thresholds=config.thresholds,
            memory_fix=memory_fix,
        )

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        return self.detections(self.forward(images)) if len(images) else []

    def at_scale(self, factor: float) -> Self:
        """See `Runtime`; the network is shared."""
        scaled = copy.copy(self)
        scaled.preprocess = self.preprocess.scaled(factor)
        return scaled

    def forward(self, images: Sequence[Tensor]) -> DenseOutput:
        """Run the network, in evaluation mode and without gradients.

        Args:
            images: at least one ``(3, height, width)`` uint8 RGB tensor, on any device.

        Raises:
            RunError: memory ran out.
        """
        image_sizes = tuple(size_of(image) for image in images)
        with self.naming_the_images(image_sizes):
            return self._run(self.preprocess.prepare(images), image_sizes)

    def forward_batch(self, batch: Batch) -> DenseOutput:
        """The same for a batch of the training, whose images are resized and padded already.

        Args:
            batch: on any device.

        Raises:
            RunError: memory ran out.
        """
        with self.naming_the_images(batch.image_sizes):
            moved = batch.to(self.device)
            images: Tensor = self.preprocess(moved.images, moved.valid_sizes)
            return self._run(PreparedImages(images, batch.image_sizes), batch.image_sizes)

    def _run(self, prepared: PreparedImages, image_sizes: tuple[Size, ...]) -> DenseOutput:
        images = prepared.images.contiguous(memory_format=self.detector.memory_format)
        with _evaluating(self.detector):
            with autocast(self.precision, self.device):
                predictions: DensePredictions = self.detector(images)
            anchors = self.detector.anchors(
                predictions.feature_shapes, prepared.padded_size, self.device
            )
        return DenseOutput(predictions, anchors, prepared.sizes, image_sizes)

    def detections(self, output: DenseOutput) -> list[Detections]:
        """What the predictions become: see `Runtime.detect` for what comes back."""
        with self.naming_the_images(output.image_sizes):
            found = self.postprocess(output.predictions, output.anchors, output.input_sizes)
            sizes = zip(output.input_sizes, output.image_sizes, strict=True)
            return [one.rescaled(*from_to).cpu() for one, from_to in zip(found, sizes, strict=True)]

    def naming_the_images(self, sizes: Sequence[Size]) -> AbstractContextManager[None]:
        """Turn running out of memory in the block into an error that says what was too large."""

        def explain() -> str:
            shape = " × ".join(map(str, self.preprocess.input_shape(sizes)))
            height, width = max(sizes, key=math.prod)
            return (
                f"out of memory on {self.device}, with a batch of {shape} (the largest image is "
                f"{height} × {width}); {self._memory_fix}"
            )

        return explaining_out_of_memory(explain)


@contextmanager
def _evaluating(detector: RetinaNet) -> Iterator[None]:
    """The detector in evaluation mode and without gradients for the ``with`` block."""
    was_training = detector.training
    detector.eval()
    try:
        # Not inference mode: its tensors could not be used by a training step later.
        with torch.no_grad():
            yield
    finally:
        detector.train(was_training)
