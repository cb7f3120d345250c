"""What a detector says at every anchor of a split's images, beside what it should say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import build_loader
from retina.devices import Precision
from retina.errors import UserError
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.runtime.torch_runtime import forward_images
from retina.structures import Anchors, BatchedTargets, DensePredictions, SampleRequest


@dataclass(frozen=True, slots=True)
class ForwardedBatch:
    """A batch after the network, on its device.

    Attributes:
        predictions: at every anchor.
        anchors: what they are about, in pixels of the network's input.
        targets: the objects, in the same pixels.
        image_ids: the original ids.
    """

    predictions: DensePredictions
    anchors: Anchors
    targets: BatchedTargets
    image_ids: tuple[int, ...]


def spread_indices(num_images: int, limit: int | None) -> list[int]:
    """At most ``limit`` indices of a split, evenly spread, so that no corner of it is left out."""
    count = num_images if limit is None else min(limit, num_images)
    return [number * num_images // count for number in range(count)]


def forward_split(
    dataset: DetectionDataset,
    indices: Sequence[int],
    *,
    detector: RetinaNet,
    preprocess: Preprocess,
    device: torch.device,
    precision: Precision = "fp32",
    batch_size: int = 4,
    num_workers: int = 0,
) -> Iterator[ForwardedBatch]:
    """Run a detector over images of a split, as an evaluation does: resized, not augmented.

    Args:
        dataset: with the detector's labels.
        indices: of the images, in the order in which they shall come.
        detector: on ``device``; in the mode afterwards that it was in before.
        preprocess: how images become the network's input.
        device: where to compute.
        precision: of the network's arithmetic.
        batch_size: images at a time.
        num_workers: processes that load images.

    Raises:
        UserError: what it says of an image is not finite: its training has diverged.
    """
    requests = [SampleRequest(index, seed=0, target_size=None, augment=False) for index in indices]
    plan = [requests[start : start + batch_size] for start in range(0, len(requests), batch_size)]
    for batch in build_loader(dataset, plan, num_workers=num_workers, size_divisor=1):
        images = [
            batch.images[row, :, :height, :width]
            for row, (height, width) in enumerate(batch.image_sizes)
        ]
        forward = forward_images(
            images, detector=detector, preprocess=preprocess, device=device, precision=precision
        )
        if not all(logits.isfinite().all() for logits in forward.predictions.class_logits):
            raise UserError(
                "the detector's logits are not finite (among the images "
                f"{', '.join(map(str, batch.image_ids))}): its training has diverged; take an "
                "earlier checkpoint"
            )
        yield ForwardedBatch(
            predictions=forward.predictions,
            anchors=forward.anchors,
            targets=batch.targets_at(forward.sizes, device),
            image_ids=batch.image_ids,
        )
