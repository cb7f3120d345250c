"""Validation images with truth and predictions, side by side, in the log."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retina.datasets.dataset import DetectionDataset
from retina.distributed import is_main_process
from retina.evaluation.evaluator import EvaluationResult
from retina.prediction.image_grids import draw_comparison
from retina.runtime.splits import spread_indices
from retina.training.run import Hook, TrainingRun


class ValidationImages(Hook):
    """Logs some images of the validation set after every evaluation; on the first rank only.

    Args:
        dataset: the validation set.
        count: how many images.
    """

    def __init__(self, dataset: DetectionDataset, count: int) -> None:
        self._dataset, self._count = dataset, count

    def end_epoch(self, run: TrainingRun, result: EvaluationResult | None) -> None:
        """Draw what was found."""
        if result is None or not is_main_process():
            return
        for name, image in draw_images(self._dataset, result, count=self._count):
            run.log.image(f"validation/{name}", image, run.step)
        run.log.flush()


def draw_images(
    dataset: DetectionDataset, result: EvaluationResult, *, count: int, score_threshold: float = 0.3
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Names and drawings of up to ``count`` images, spread evenly over the split."""
    pictures = []
    for index in spread_indices(len(result.image_ids), count):
        picture = draw_comparison(
            dataset.load(index).image,
            dataset.targets(index),
            result.detections[index],
            dataset.categories,
            score_threshold=score_threshold,
        )
        pictures.append((str(result.image_ids[index]), picture))
    return pictures
