"""Runs a detector over a split and scores it; optionally with the losses it has there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retina.datasets.batch_sampling import evaluation_batches
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import LoaderConfig
from retina.devices import Precision
from retina.distributed import gather_objects, rank, sum_over_ranks, world_size
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import Backend
from retina.evaluation.metrics import DetectionMetrics
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import Postprocess
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion
from retina.runtime.torch_runtime import forward_images, naming_the_images
from retina.structures import Anchors, Batch, DensePredictions, Detections, Size


@dataclass(frozen=True)
class EvaluationResult:
    """What running a detector over a split gives.

    Attributes:
        metrics: the COCO numbers, the same on every rank.
        losses: classification and box regression loss over the whole split; None unless asked for.
        image_ids: of all images, those of rank 0 first.
        detections: in each of them, in pixels of the original image.
    """

    metrics: DetectionMetrics
    losses: dict[str, float] | None
    image_ids: tuple[int, ...]
    detections: tuple[Detections, ...]


class Evaluator:
    """Runs a detector over a split.

    The images go in at their original size and are resized by the detector's own preprocessing, so
    that what is scored here is what a user gets who predicts on the files.

    Args:
        dataset: the split; its labels are those of the detector.
        preprocess: how images become the network's input.
        postprocess: how the network's output becomes detections.
        device: where to compute.
        precision: of the network.
        batch_size: images at a time.
        num_workers: processes that load images.
        loader: how they do it; None for its defaults.
        max_detections: how many detections of one category in one image count; COCO says 100.
        backend: the scoring engine.
        memory_remedy: what the error says to do where memory runs out.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        preprocess: Preprocess,
        postprocess: Postprocess,
        device: torch.device,
        precision: Precision,
        batch_size: int = 8,
        num_workers: int = 0,
        loader: LoaderConfig | None = None,
        max_detections: int = 100,
        backend: Backend = "hotcoco",
        memory_remedy: str = "lower its batch_size",
    ) -> None:
        self.dataset = dataset
        self.postprocess = postprocess
        self._preprocess = preprocess
        self._device = device
        self._precision: Precision = precision
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._loader = loader or LoaderConfig()
        self._backend: Backend = backend
        self._max_detections = max_detections
        self._memory_remedy = memory_remedy

    @torch.no_grad()
    def run(
        self,
        detector: RetinaNet,
        *,
        criterion: Criterion | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> EvaluationResult:
        """Score the detector.

        Args:
            detector: is in the mode afterwards that it was in before.
            criterion: also compute the losses on the split.
            on_progress: called with the number of images done since the last call.

        Raises:
            RunError: memory ran out.
        """
        metrics = CocoMetrics(
            self.dataset.ground_truth(),
            backend=self._backend,
            max_detections=self._max_detections,
        )
        totals = torch.zeros(5, device=self._device)
        seen: list[tuple[int, Detections]] = []
        for batch in self._batches():
            with naming_the_images(
                batch.image_sizes,
                preprocess=self._preprocess,
                device=self._device,
                remedy=self._memory_remedy,
            ):
                detections, losses = self._detect(batch, detector, criterion)
            if losses is not None:
                totals += losses
            metrics.update(batch.image_ids, detections)
            seen += zip(batch.image_ids, detections, strict=True)
            if on_progress is not None:
                on_progress(len(batch))
        everything = [pair for part in gather_objects(seen) for pair in part]
        return EvaluationResult(
            metrics=metrics.compute(),
            losses=_losses(sum_over_ranks(totals)) if criterion is not None else None,
            image_ids=tuple(image_id for image_id, _ in everything),
            detections=tuple(found for _, found in everything),
        )

    def _detect(
        self, batch: Batch, detector: RetinaNet, criterion: Criterion | None
    ) -> tuple[list[Detections], Tensor | None]:
        """What is found in a batch, in host memory, and its `LossSums` as ``(5,)`` if asked for."""
        images = [
            batch.images[row, :, :height, :width].to(self._device)
            for row, (height, width) in enumerate(batch.image_sizes)
        ]
        forward = forward_images(
            images,
            detector=detector,
            preprocess=self._preprocess,
            device=self._device,
            precision=self._precision,
        )
        losses = None
        if criterion is not None:
            losses = self._loss_sums(
                criterion, forward.predictions, forward.anchors, batch, forward.sizes
            )
        found = self.postprocess(forward.predictions, forward.anchors, forward.sizes)
        detections = [
            one.rescaled(size, original).cpu()
            for one, size, original in zip(found, forward.sizes, batch.image_sizes, strict=True)
        ]
        return detections, losses

    def _batches(self) -> torch.utils.data.DataLoader[Batch]:
        plan = evaluation_batches(
            len(self.dataset), self._batch_size, rank=rank(), world_size=world_size()
        )
        return self._loader.build(
            self.dataset,
            plan,
            num_workers=self._num_workers,
            size_divisor=1,
            pin_memory=self._device.type == "cuda",
        )

    def _loss_sums(
        self,
        criterion: Criterion,
        predictions: DensePredictions,
        anchors: Anchors,
        batch: Batch,
        sizes: tuple[Size, ...],
    ) -> Tensor:
        targets = batch.targets_at(sizes, self._device)
        return criterion.sums(predictions, anchors, targets).detach_stack()


def _losses(totals: Tensor) -> dict[str, float]:
    classification, box_regression, _, _, divisor = totals.tolist()
    divisor = max(1.0, divisor)
    return {
        "loss": (classification + box_regression) / divisor,
        "classification": classification / divisor,
        "box_regression": box_regression / divisor,
    }
