"""Validation images with truth and predictions, side by side, in the log."""

from __future__ import annotations

from retina.datasets.dataset import DetectionDataset
from retina.distributed import is_main_process
from retina.evaluation.evaluator import EvaluationResult
from retina.prediction.drawing import Picture
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
        """Draw what was found; a picture that fails is a warning, the training goes on."""
        if result is None or not is_main_process():
            return
        for index in spread_indices(len(result.image_ids), self._count):
            image_id = result.image_ids[index]
            try:
                picture = draw_image(self._dataset, result, index)
            except Exception as error:
                message = f"validation image {image_id} could not be drawn: {error}"
                run.progress.message(f"warning: {message}")
                run.log.record("warning", run.step, message)
            else:
                run.log.image(f"validation/{image_id}", picture, run.step)
        run.log.flush()


def draw_image(
    dataset: DetectionDataset, result: EvaluationResult, index: int, *, score_threshold: float = 0.3
) -> Picture:
    """One image of the split, with its truth and what was found beside each other."""
    return draw_comparison(
        dataset.load(index).image,
        dataset.targets(index),
        result.detections[index],
        dataset.categories,
        score_threshold=score_threshold,
    )
