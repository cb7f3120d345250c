"""Data sets that a detector is run over and scored on: of several annotation files, or some images.

Letters: N detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from retina.datasets.coco_results import DetectionArrays
from retina.datasets.combined import ConcatenatedDataset
from retina.datasets.dataset import DetectionDataset
from retina.datasets.image_lists import image_names, listed_images
from retina.datasets.subset import SubsetDataset
from retina.datasets.written_results import write_results
from retina.evaluation.evaluator import EvaluationResult
from retina.evaluation.folder import results_name
from retina.evaluation.scored_images import ScoredImages, list_finding
from retina.structures import Categories, IntArray


@dataclass(frozen=True, slots=True)
class ScoredDataset:
    """A data set to run a detector over, and what to score it against.

    Attributes:
        dataset: all images.
        images: the same images, in the data set's order.
        categories: of each annotation file: the detector's classes, with the ids of that file.
    """

    dataset: DetectionDataset
    images: ScoredImages
    categories: tuple[Categories, ...]

    @classmethod
    def of(
        cls,
        parts: Sequence[DetectionDataset],
        sources: Sequence[str],
        image_list: Path | None = None,
    ) -> Self:
        """All images of one or several data sets with the same classes, or those that a list names.

        Args:
            parts: the data sets.
            sources: what each is called.
            image_list: see `listed_images`.

        Raises:
            UserError: the list names an image that there is not.
        """
        dataset = parts[0] if len(parts) == 1 else ConcatenatedDataset(parts)
        truths = [part.ground_truth() for part in parts]
        images = ScoredImages(
            truth=dataset.ground_truth(),
            ids=tuple(image_id for truth in truths for image_id in truth.ids_in_file),
            file_names=tuple(name for part in parts for name in image_names(part)),
            sources=tuple(sources),
            source_of=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        )
        if image_list is not None:
            named = [sources[number] for number in images.source_of.tolist()]
            rows = listed_images(image_list, images.file_names, images.ids, named)
            finding = list_finding(image_list, len(rows), len(images))
            dataset, images = SubsetDataset(dataset, rows, finding), images.take(rows)
        return cls(dataset, images, tuple(part.categories for part in parts))

    def arrays(self, result: EvaluationResult) -> DetectionArrays:
        """What was found, as a results file holds it."""
        detections = result.detections
        counts = [len(found) for found in detections]
        rows = self._rows(result)
        if not counts:
            nothing = np.zeros(0, dtype=np.int64)
            return DetectionArrays(nothing, np.zeros((0, 4)), np.zeros(0), nothing)
        # Widths are differences in float64, as `CocoMetrics.update` takes them.
        boxes = torch.cat([found.boxes for found in detections]).cpu().double().numpy()
        return DetectionArrays(
            image_ids=np.repeat(self.images.truth.image_ids[rows], counts),
            boxes_xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
            scores=torch.cat([found.scores for found in detections]).cpu().double().numpy(),
            labels=torch.cat([found.labels for found in detections]).cpu().numpy().astype(np.int64),
        )

    def write_results(self, folder: Path, result: EvaluationResult) -> None:
        """Write ``detections.json``; or ``detections_1.json`` … for the first annotation file, ….

        Each has the ids of its annotation file, which those of another may coincide with.

        Raises:
            UserError: a file may not be written.
            RunError: the disk is full.
        """
        rows = self._rows(result)
        of_file = self.images.source_of[rows]
        for number, categories in enumerate(self.categories):
            own = np.flatnonzero(of_file == number).tolist()
            write_results(
                folder / results_name(number, len(self.categories)),
                [self.images.ids[rows[at]] for at in own],
                [result.detections[at] for at in own],
                categories,
            )

    def _rows(self, result: EvaluationResult) -> IntArray:
        """The row of each image of a result."""
        row_of = {image_id: row for row, image_id in enumerate(self.images.truth.ids_in_file)}
        return np.array([row_of[image_id] for image_id in result.image_ids], dtype=np.int64)
