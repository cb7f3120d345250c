"""Can one batch be learned? If not, nothing can be learned from many."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from retina.evaluation.coco_metrics import CocoMetrics
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding, Level
from retina.instruments.doctor.learning_rate import finite
from retina.instruments.doctor.trial import load_batch, plain_requests, start_trial
from retina.runtime import TorchRuntime
from retina.structures import Batch, Categories, GroundTruth
from retina.training.optimization import peak_learning_rate
from retina.wording import counted

OVERFIT_AP = 0.9
"""What an overfitted batch must reach."""

_IMAGES = 4
_STEPS = 400
_SECONDS = 240.0
_SCORE_EVERY = 50


@dataclass(frozen=True, slots=True)
class Overfit:
    """How overfitting one batch went.

    Attributes:
        ap: COCO's AP on the batch.
        ap50: at IoU 0.5.
        steps: that it took, or that were allowed.
        seconds: of the whole.
        loss: of the last step.
        is_cut: whether the time ran out while it still learned, or before that could be told.
    """

    ap: float
    ap50: float
    steps: int
    seconds: float
    loss: float
    is_cut: bool = False

    @property
    def level(self) -> Level | None:
        """How bad it is; None where the batch was learned."""
        if self.ap > OVERFIT_AP:
            return None
        # Boxes that are found, but not to the pixel, are a matter of a longer training; so is
        # whatever a slow machine had no time for.
        if self.ap50 > OVERFIT_AP or self.is_cut:
            return "note"
        return "error" if self.ap50 < 0.5 else "warning"


def check_overfit(context: CheckContext) -> CheckResult:
    """Overfit a few images."""
    outcome = overfit_one_batch(context)
    numbers = {
        "AP": outcome.ap,
        "AP50": outcome.ap50,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "loss": finite(outcome.loss),
    }
    summary = (
        f"AP {outcome.ap:.3f}, AP50 {outcome.ap50:.3f} after {counted(outcome.steps, 'step')} "
        f"({outcome.seconds:.0f} s)"
    )
    if outcome.ap < 0:
        return CheckResult("nothing could be scored, the images have no object")
    if outcome.level is None:
        return CheckResult(summary, (), dict(numbers))
    finding = Finding(
        code="batch_not_learned",
        level=outcome.level,
        what=f"one batch of {_IMAGES} images could not be overfitted: AP {outcome.ap:.2f} (AP50 "
        f"{outcome.ap50:.2f}) after {counted(outcome.steps, 'step')}, more than {OVERFIT_AP} "
        f"is expected{', but the time was over' if outcome.is_cut else ''}",
        why="What cannot be learned from a few images will not be learned from many: boxes, "
        "anchors, input size or learning rate are wrong.",
        fix="Fix the other findings first; then try a larger input (preprocess.min_size).",
        numbers=dict(numbers),
    )
    return CheckResult(summary, (finding,), dict(numbers))


def overfit_one_batch(context: CheckContext, *, max_steps: int = _STEPS) -> Overfit:
    """Train on one batch without augmentation until its AP is above `OVERFIT_AP`.

    The config's own loss, optimizer, peak rate and precision; the schedule is a short warm-up and
    half a cosine. It ends after ``max_steps``, or after some minutes on a slow machine.
    """
    started = time.monotonic()
    batch = load_batch(context, plain_requests(context, _IMAGES))
    trial = start_trial(context)
    peak = peak_learning_rate(context.config.optimizer, context.config.training.decided_batch_size)
    loss, first_loss = math.nan, math.nan
    for step in range(max_steps):
        loss = trial.advance([batch], peak * _factor(step, max_steps))
        first_loss = loss if step == 0 else first_loss
        is_last = step == max_steps - 1 or not math.isfinite(loss)
        is_late = time.monotonic() - started > _SECONDS
        if is_last or is_late or (step + 1) % _SCORE_EVERY == 0:
            ap, ap50 = _score(trial.runtime, batch) if math.isfinite(loss) else (0.0, 0.0)
            if is_last or is_late or ap > OVERFIT_AP:
                is_learning = step < _SCORE_EVERY or loss < first_loss / 2
                is_cut = is_late and not is_last and is_learning
                return Overfit(ap, ap50, step + 1, time.monotonic() - started, loss, is_cut)
    raise AssertionError("max_steps is at least 1")


def _factor(step: int, max_steps: int) -> float:
    warm = min(20, max_steps // 4)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - warm) / (max_steps - warm))) / 2


def _score(runtime: TorchRuntime, batch: Batch) -> tuple[float, float]:
    """AP and AP50 on a batch, in pixels of the network's input."""
    metrics = CocoMetrics(truth_of(batch, runtime.categories))
    metrics.update(range(len(batch)), runtime.detections(runtime.forward_batch(batch)))
    scores = metrics.compute()
    return scores.AP, scores.AP50


def truth_of(batch: Batch, categories: Categories) -> GroundTruth:
    """The objects of a batch as a ground truth; its images are numbered from 0."""
    targets = batch.targets
    rows, columns = targets.is_object.nonzero(as_tuple=True)
    boxes = targets.boxes[rows, columns].double().numpy()
    sides = boxes[:, 2:] - boxes[:, :2]
    return GroundTruth(
        categories=categories,
        image_ids=np.arange(len(batch), dtype=np.int64),
        image_sizes=np.array(batch.image_sizes, dtype=np.int64),
        annotation_ids=np.arange(1, len(rows) + 1, dtype=np.int64),
        annotation_image_ids=rows.numpy(),
        category_labels=targets.labels[rows, columns].numpy(),
        boxes_xywh=np.concatenate([boxes[:, :2], sides], axis=1),
        areas=sides.prod(axis=1),
        is_crowd=targets.is_crowd[rows, columns].numpy(),
    )
