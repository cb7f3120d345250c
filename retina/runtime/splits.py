"""What a detector says at every anchor of a split's images, beside what it should say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from retina.datasets.batch_sampling import plain_batches
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import LoaderConfig, collate_images
from retina.errors import UserError
from retina.runtime.torch_runtime import DenseOutput, TorchRuntime
from retina.structures import Anchors, BatchedTargets, DensePredictions, ImageBatch


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


def targets_of_input(batch: ImageBatch, output: DenseOutput) -> BatchedTargets:
    """The objects of a batch in pixels of the network's input, beside its predictions."""
    targets = batch.targets.rescaled(output.image_sizes, output.input_sizes)
    return targets.to(output.anchors.boxes.device)


def forward_split(
    runtime: TorchRuntime,
    dataset: DetectionDataset,
    indices: Sequence[int],
    *,
    batch_size: int = 4,
    num_workers: int = 0,
) -> Iterator[ForwardedBatch]:
    """Run a detector over images of a split, as an evaluation does: resized, not augmented.

    Args:
        runtime: runs the detector.
        dataset: with the detector's labels.
        indices: of the images, in the order in which they shall come.
        batch_size: images at a time.
        num_workers: processes that load images.

    Raises:
        UserError: what it says of an image is not finite: its training has diverged.
    """
    batches = plain_batches(indices, batch_size)
    for batch in LoaderConfig().build(dataset, batches, collate_images, num_workers=num_workers):
        yield _forwarded(runtime, batch)  # nothing here holds it while the next one is made


def _forwarded(runtime: TorchRuntime, batch: ImageBatch) -> ForwardedBatch:
    output = runtime.forward(batch.images)
    refuse_diverged(output, f"among the images {', '.join(map(str, batch.image_ids))}")
    targets = targets_of_input(batch, output)
    return ForwardedBatch(output.predictions, output.anchors, targets, batch.image_ids)


def refuse_diverged(output: DenseOutput, where: str) -> None:
    """For those who measure at every anchor, where a value that is none would spoil all.

    Raises:
        UserError: a logit or a box is not finite.
    """
    for what in ("class_logits", "box_codes"):
        levels: tuple[Tensor, ...] = getattr(output.predictions, what)
        if not all(values.isfinite().all() for values in levels):
            name = what.removeprefix("class_").replace("_", " ")
            raise UserError(
                f"the detector's {name} are not finite ({where}): its training has diverged; take "
                "an earlier checkpoint"
            )
