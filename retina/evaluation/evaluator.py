"""Runs a detector over a split and scores it; optionally with the losses it has there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from retina.datasets.batch_sampling import evaluation_batches, plain_batches
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import LoaderConfig, collate_images
from retina.distributed import (
    alone,
    barrier,
    gather_objects,
    is_main_process,
    rank,
    sum_over_ranks,
    world_size,
)
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import (
    BATCH_SIZE,
    COCO_MAX_DETECTIONS,
    DEFAULT_BACKEND,
    Backend,
    ScoringProblem,
)
from retina.evaluation.metrics import DetectionMetrics
from retina.modeling.preprocess import size_of
from retina.objective.criterion import Criterion
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.detection_log import DetectionLog, LoggedImage
from retina.runtime.splits import targets_of_input
from retina.structures import Detections, ImageBatch, OriginalId, SampleRequest


@dataclass(frozen=True)
class EvaluationResult:
    """What running a detector over a split gives.

    Attributes:
        metrics: the COCO numbers, the same on every rank.
        losses: classification and box regression loss over the whole split; None unless asked for.
        image_ids: of all images, as their file has them, in the data set's order.
        detections: in each of them, in pixels of the original image.
        problem: the same and the ground truth, as matching takes them; over all ranks.
    """

    metrics: DetectionMetrics
    losses: dict[str, float] | None
    image_ids: tuple[OriginalId, ...]
    detections: tuple[Detections, ...]
    problem: ScoringProblem | None = None


class Evaluator:
    """Runs detectors over a split.

    The images go in at their original size and are resized by the detector's own preprocessing, so
    that what is scored here is what a user gets who predicts on the files.

    Args:
        dataset: the split; its labels are those of the detector.
        batch_size: images at a time.
        num_workers: processes that load images.
        loader: how they do it; None for its defaults.
        pin_memory: load into page-locked memory, for a faster copy to a GPU.
        max_detections: how many detections of one category in one image count; COCO says 100.
        backend: the scoring engine.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        batch_size: int = BATCH_SIZE,
        num_workers: int = 0,
        loader: LoaderConfig | None = None,
        pin_memory: bool = False,
        max_detections: int = COCO_MAX_DETECTIONS,
        backend: Backend = DEFAULT_BACKEND,
    ) -> None:
        self.dataset = dataset
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._loader = loader or LoaderConfig()
        self._pin_memory = pin_memory
        self._max_detections = max_detections
        self._backend: Backend = backend

    def run(
        self, runtime: Runtime, *, on_progress: Callable[[int], None] | None = None
    ) -> EvaluationResult:
        """Score a detector.

        Args:
            runtime: runs it.
            on_progress: called with the number of images done since the last call.

        Raises:
            RunError: memory ran out.
        """
        return self._score(lambda batch: runtime.detect(batch.images), None, on_progress)

    def run_logged(
        self,
        runtime: Runtime,
        log: DetectionLog,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> EvaluationResult | None:
        """The same, of the images that a log does not have yet; all that is found is logged.

        In a process group the images are shared, and the main process scores what all have logged.

        Args:
            runtime: runs the detector.
            log: of a run over this data set, by the indices of the images.
            on_progress: as in `run`.

        Returns:
            What it gave; None in a process that is not the main one.

        Raises:
            RunError: memory ran out.
        """
        index_of = {number: index for index, number in enumerate(self.dataset.image_ids.tolist())}
        remaining = [index for index in range(len(self.dataset)) if index not in log.done]
        share = slice(*(at * len(remaining) // world_size() for at in (rank(), rank() + 1)))
        for batch in self._load(plain_batches(remaining[share], self._batch_size)):
            found = runtime.detect(batch.images)
            for image_id, image, one in zip(batch.image_ids, batch.images, found, strict=True):
                log.add(LoggedImage(index_of[image_id], size_of(image), one))
            if on_progress is not None:
                on_progress(len(batch))
        log.close()
        barrier()
        if not is_main_process():
            return None
        with alone():
            numbers = self.dataset.image_ids.tolist()
            seen = [(numbers[one.item], one.found) for one in log.images()]
            metrics = self._metrics()
            metrics.update([number for number, _ in seen], [found for _, found in seen])
            return _result(metrics, None, seen)

    def run_with_losses(self, runtime: TorchRuntime, criterion: Criterion) -> EvaluationResult:
        """Score a detector and compute its losses on the split; errors as in `run`."""
        totals = torch.zeros(6, device=runtime.device)

        def detect(batch: ImageBatch) -> list[Detections]:
            output = runtime.forward(batch.images)
            with runtime.naming_the_images(output.image_sizes), torch.no_grad():
                targets = targets_of_input(batch, output)
                sums = criterion.sums(output.predictions, output.anchors, targets)
            weight = sums.num_foreground if sums.box_weight is None else sums.box_weight
            totals.add_(torch.cat([sums.detach_stack(), weight.float().reshape(1)]))
            return runtime.detections(output)

        return self._score(detect, totals, None)

    def _score(
        self,
        detect: Callable[[ImageBatch], list[Detections]],
        totals: torch.Tensor | None,
        on_progress: Callable[[int], None] | None,
    ) -> EvaluationResult:
        """Detect in this rank's images; all ranks take part in what is counted.

        Args:
            detect: finds the objects in a few images.
            totals: the `LossSums` of this rank and their box weight as ``(6,)``, which ``detect``
                fills.
            on_progress: as in `run`.
        """
        metrics = self._metrics()
        batches = evaluation_batches(
            len(self.dataset), self._batch_size, rank=rank(), world_size=world_size()
        )
        seen: list[tuple[int, Detections]] = []
        for batch in self._load(batches):
            detections = detect(batch)
            metrics.update(batch.image_ids, detections)
            seen += zip(batch.image_ids, detections, strict=True)
            if on_progress is not None:
                on_progress(len(batch))
        everything = [pair for part in gather_objects(seen) for pair in part]
        losses = None if totals is None else _losses(sum_over_ranks(totals))
        return _result(metrics, losses, everything)

    def _metrics(self) -> CocoMetrics:
        return CocoMetrics(
            self.dataset.ground_truth(),
            backend=self._backend,
            max_detections=self._max_detections,
        )

    def _load(self, batches: Sequence[Sequence[SampleRequest]]) -> Iterable[ImageBatch]:
        loader: Iterable[ImageBatch] = self._loader.build(
            self.dataset,
            batches,
            collate_images,
            num_workers=self._num_workers,
            pin_memory=self._pin_memory,
        )
        return loader


def _result(
    metrics: CocoMetrics, losses: dict[str, float] | None, seen: Sequence[tuple[int, Detections]]
) -> EvaluationResult:
    """What was found in images of these ids, and the numbers that the metrics have of it."""
    originals = metrics.ground_truth.original_image_ids
    problem = metrics.problem()
    return EvaluationResult(
        metrics=metrics.numbers_of(problem),
        losses=losses,
        image_ids=tuple(originals.get(image_id, image_id) for image_id, _ in seen),
        detections=tuple(found for _, found in seen),
        problem=problem,
    )


def _losses(totals: torch.Tensor) -> dict[str, float]:
    classification, box_regression, _, num_foreground, divisor, box_weight = totals.tolist()
    divisor = max(1.0, divisor)
    box_regression *= num_foreground / box_weight if box_weight else 1.0
    return {
        "loss": (classification + box_regression) / divisor,
        "classification": classification / divisor,
        "box_regression": box_regression / divisor,
    }
