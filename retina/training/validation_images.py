"""Validation images with truth and predictions, side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retina.datasets.dataset import DetectionDataset
from retina.evaluation.evaluator import EvaluationResult
from retina.prediction.image_grids import draw_comparison


def validation_pictures(
    dataset: DetectionDataset, result: EvaluationResult, *, count: int, score_threshold: float = 0.3
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Names and pictures of up to ``count`` images, spread evenly over the split."""
    num_images = len(result.image_ids)
    count = min(count, num_images)
    index_of = {int(image_id): index for index, image_id in enumerate(dataset.image_ids)}
    pictures = []
    for number in range(count):
        position = number * num_images // count
        index = index_of[result.image_ids[position]]
        picture = draw_comparison(
            dataset.load(index).image,
            dataset.targets(index),
            result.detections[position],
            dataset.categories,
            score_threshold=score_threshold,
        )
        pictures.append((str(result.image_ids[position]), picture))
    return pictures
