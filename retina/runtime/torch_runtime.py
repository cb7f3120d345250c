"""Images in, detections out: the one path that prediction, evaluation and validation share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from retina.devices import Precision, autocast, explaining_out_of_memory
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import Postprocess
from retina.modeling.preprocess import PreparedImages, Preprocess
from retina.structures import Anchors, DensePredictions, Detections, Size


class ForwardedImages(NamedTuple):
    """What the network says about images of several sizes.

    Attributes:
        predictions: at every anchor.
        anchors: what they are about, in pixels of the network's input.
        sizes: (height, width) of each image in that input, without the padding.
    """

    predictions: DensePredictions
    anchors: Anchors
    sizes: tuple[Size, ...]


@contextmanager
def evaluating(detector: RetinaNet) -> Iterator[None]:
    """The detector in evaluation mode and without gradients for the ``with`` block."""
    was_training = detector.training
    detector.eval()
    try:
        # Not inference mode: its tensors could not be used by a training step later.
        with torch.no_grad():
            yield
    finally:
        detector.train(was_training)


def forward_images(
    images: Sequence[Tensor],
    *,
    detector: RetinaNet,
    preprocess: Preprocess,
    device: torch.device | str,
    precision: Precision,
) -> ForwardedImages:
    """Run the network, in evaluation mode and without gradients.

    Args:
        images: at least one ``(3, height, width)`` uint8 RGB tensor, on any device.
        detector: on ``device``.
        preprocess: how images become the network's input.
        device: where to compute.
        precision: of the network's arithmetic.
    """
    with evaluating(detector):
        prepared: PreparedImages = preprocess.prepare([image.to(device) for image in images])
        with autocast(precision, torch.device(device)):
            predictions: DensePredictions = detector(
                prepared.images.contiguous(memory_format=detector.memory_format)
            )
        anchors = detector.anchors(
            predictions.feature_shapes, prepared.padded_size, prepared.images.device
        )
    return ForwardedImages(predictions, anchors, prepared.sizes)


@contextmanager
def naming_the_images(
    sizes: Sequence[Size], *, preprocess: Preprocess, device: torch.device | str, remedy: str
) -> Iterator[None]:
    """Turn running out of memory in the block into an error that says what was too large.

    Args:
        sizes: (height, width) of each image of the batch, as it is given.
        preprocess: how they become the network's input.
        device: where to compute.
        remedy: what to do about it.

    Raises:
        RunError: memory ran out.
    """

    def explain() -> str:
        shape = " × ".join(map(str, preprocess.input_shape(sizes)))
        height, width = max(sizes, key=math.prod)
        return (
            f"out of memory on {device}, with a batch of {shape} (the largest image is {height} × "
            f"{width}); {remedy}"
        )

    with explaining_out_of_memory(explain):
        yield


def detect(
    images: Sequence[Tensor],
    *,
    detector: RetinaNet,
    preprocess: Preprocess,
    postprocess: Postprocess,
    device: torch.device | str,
    precision: Precision,
) -> list[Detections]:
    """The objects in each image, in pixels of the image as it was given.

    Args:
        images: ``(3, height, width)`` uint8 RGB tensors of any sizes, run as one batch.
        detector: on ``device``.
        preprocess: how images become the network's input.
        postprocess: how predictions become detections.
        device: where to compute, and where the detections are.
        precision: of the network's arithmetic; boxes and scores are always float32.
    """
    if not images:
        return []
    predictions, anchors, sizes = forward_images(
        images, detector=detector, preprocess=preprocess, device=device, precision=precision
    )
    return [
        detections.rescaled(size, (int(image.shape[1]), int(image.shape[2])))
        for detections, size, image in zip(
            postprocess(predictions, anchors, sizes), sizes, images, strict=True
        )
    ]
