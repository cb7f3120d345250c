"""A few real steps: does the loss fall at this learning rate, and can one batch be learned?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from retina.devices import autocast
from retina.evaluation.coco_metrics import CocoMetrics
from retina.instruments.doctor.findings import Examined, Finding, Number, Severity
from retina.instruments.doctor.learning_rate import lr_key
from retina.instruments.doctor.subject import Subject
from retina.instruments.doctor.trial import (
    Trial,
    batch_sampler_of,
    load_batch,
    load_parts,
    plain_requests,
    start_trial,
)
from retina.structures import Batch, Categories, DensePredictions, GroundTruth
from retina.training.optimization import peak_learning_rate

_PROBE_STEPS = 24
_PROBE_WARM_UP = 6
_RISEN = 1.3
"""The loss counts as risen where its last quarter is so many times its first."""

OVERFIT_AP = 0.9
"""What one batch must reach when it is learned by heart."""

_OVERFIT_IMAGES = 4
_OVERFIT_STEPS = 400
_OVERFIT_SECONDS = 240.0
_SCORE_EVERY = 50


def probe_learning_rate(subject: Subject) -> Examined:
    """Warm up within a few steps, go on at the peak, and see whether the loss falls.

    The same steps are made at a tenth of the rate where it does not: only if they go well is it
    the rate.
    """
    batches = _probe_batches(subject)
    peak = peak_learning_rate(subject.config.optimizer, subject.config.training.decided_batch_size)
    losses = _descend(start_trial(subject), batches, peak)
    first, last = _ends(losses)
    numbers: dict[str, Number] = {
        "first_loss": _number(first),
        "last_loss": _number(last),
        "steps": len(losses),
    }
    summary = f"loss {first:.2f} to {last:.2f} in {len(losses)} steps at {peak:.2g}"
    if _is_falling(losses):
        return Examined(summary, (), numbers)
    gentle = _descend(start_trial(subject), batches, peak / 10)
    numbers["last_loss_at_a_tenth"] = _number(_ends(gentle)[1])
    return Examined(summary, (_does_not_fall(subject, losses, gentle, peak),), numbers)


def _does_not_fall(
    subject: Subject, losses: Sequence[float], gentle: Sequence[float], peak: float
) -> Finding:
    first, last = _ends(losses)
    how = f"rises from {first:.2f} to {last:.2f}" if math.isfinite(last) else "becomes infinite"
    if not _is_falling(gentle):
        return Finding(
            code="loss_rises",
            severity="severe",
            what=f"the loss {how} in {len(losses)} steps, and no better at a tenth of the rate",
            why="It is not the learning rate that is wrong.",
            remedy="Look at the boxes in batch.png, the normalisation and the precision.",
            numbers={"first_loss": _number(first), "last_loss": _number(last)},
        )
    lr = float(f"{lr_key(subject.config, peak / 10):.2g}")
    return Finding(
        code="learning_rate_diverges",
        severity="severe",
        what=f"the loss {how} in {len(losses)} steps at the learning rate {peak:.2g}; at a tenth "
        f"of it, it ends at {_ends(gentle)[1]:.2f}",
        why="The training would diverge, or forget what the pretrained weights know.",
        remedy=f"Lower optimizer.lr to {lr:g}.",
        patch={"optimizer": {"lr": lr}},
        numbers={"first_loss": _number(first), "last_loss": _number(last), "peak": peak},
    )


def _probe_batches(subject: Subject) -> list[list[Batch]]:
    """A few batches of the plan, as augmented as in training."""
    return [load_parts(subject, requests) for requests in batch_sampler_of(subject).epoch(0)[:4]]


def _descend(trial: Trial, batches: Sequence[list[Batch]], peak: float) -> list[float]:
    losses: list[float] = []
    for number in range(_PROBE_STEPS):
        lr = peak * min(1.0, (number + 1) / _PROBE_WARM_UP)
        losses.append(trial.advance(batches[number % len(batches)], lr))
        if not math.isfinite(losses[-1]):
            break
    return losses


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """Mean loss of the first and of the last quarter."""
    quarter = max(1, len(losses) // 4)
    return float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))


def _is_falling(losses: Sequence[float]) -> bool:
    first, last = _ends(losses)
    return math.isfinite(last) and last < _RISEN * first


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


@dataclass(frozen=True, slots=True)
class Overfit:
    """How learning one batch by heart went.

    Attributes:
        ap: COCO's AP on the batch.
        ap50: at IoU 0.5.
        steps: that it took, or that were allowed.
        seconds: of the whole.
        loss: of the last step.
    """

    ap: float
    ap50: float
    steps: int
    seconds: float
    loss: float


def examine_overfit(subject: Subject) -> Examined:
    """Learn a few images by heart: if that fails, nothing can be learned from many."""
    outcome = overfit_one_batch(subject)
    numbers = {
        "AP": outcome.ap,
        "AP50": outcome.ap50,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "loss": _number(outcome.loss),
    }
    summary = (
        f"AP {outcome.ap:.3f}, AP50 {outcome.ap50:.3f} after {outcome.steps} steps "
        f"({outcome.seconds:.0f} s)"
    )
    if outcome.ap > OVERFIT_AP:
        return Examined(summary, (), dict(numbers))
    finding = Finding(
        code="batch_not_learned",
        severity=_how_bad(outcome),
        what=f"{_OVERFIT_IMAGES} images could not be learned by heart: AP {outcome.ap:.2f} (AP50 "
        f"{outcome.ap50:.2f}) after {outcome.steps} steps, more than {OVERFIT_AP} is expected",
        why="What cannot be learned from a few images will not be learned from many: boxes, "
        "anchors, input size or learning rate are wrong.",
        remedy="Mend the other findings first; then try a larger input (preprocess.min_size).",
        numbers=dict(numbers),
    )
    return Examined(summary, (finding,), dict(numbers))


def _how_bad(outcome: Overfit) -> Severity:
    # Boxes that are found, but not to the pixel, are a matter of a longer training.
    if outcome.ap50 > OVERFIT_AP:
        return "note"
    return "severe" if outcome.ap50 < 0.5 else "warning"


def overfit_one_batch(subject: Subject, *, max_steps: int = _OVERFIT_STEPS) -> Overfit:
    """Train on one batch without augmentation until its AP is above `OVERFIT_AP`.

    The config's own loss, optimizer, peak rate and precision; the schedule is a short warm-up and
    half a cosine. It ends after ``max_steps``, or after some minutes on a slow machine.
    """
    started = time.monotonic()
    batch = load_batch(subject, plain_requests(subject, _OVERFIT_IMAGES))
    trial = start_trial(subject)
    peak = peak_learning_rate(subject.config.optimizer, subject.config.training.decided_batch_size)
    loss = math.nan
    for step in range(max_steps):
        loss = trial.advance([batch], peak * _factor(step, max_steps))
        is_last = step == max_steps - 1 or not math.isfinite(loss)
        is_late = time.monotonic() - started > _OVERFIT_SECONDS
        if is_last or is_late or (step + 1) % _SCORE_EVERY == 0:
            ap, ap50 = _score(subject, trial, batch) if math.isfinite(loss) else (0.0, 0.0)
            if is_last or is_late or ap > OVERFIT_AP:
                return Overfit(ap, ap50, step + 1, time.monotonic() - started, loss)
    raise AssertionError("max_steps is at least 1")


def _factor(step: int, max_steps: int) -> float:
    warm = min(20, max_steps // 4)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - warm) / (max_steps - warm))) / 2


@torch.no_grad()
def _score(subject: Subject, trial: Trial, batch: Batch) -> tuple[float, float]:
    """AP and AP50 on a batch, in pixels of the network's input."""
    trial.detector.eval()
    moved = batch.to(trial.device)
    images = trial.preprocess(moved.images, moved.valid_sizes)
    images = images.contiguous(memory_format=trial.detector.memory_format)
    with autocast(trial.precision, trial.device):
        predictions: DensePredictions = trial.detector(images)
    anchors = trial.detector.anchors(predictions.feature_shapes, batch.padded_size, trial.device)
    postprocess = subject.config.postprocess.build(trial.detector.box_coder)
    found = postprocess(predictions, anchors, batch.image_sizes)
    metrics = CocoMetrics(truth_of(batch, subject.train.categories))
    metrics.update(range(len(batch)), [one.cpu() for one in found])
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
