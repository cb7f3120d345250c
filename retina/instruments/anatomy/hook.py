"""The anatomy of the classification loss while it is trained."""

from __future__ import annotations

import math
from typing import Any

import torch

from retina.instruments.anatomy import GROUPS, AnatomyMeter, Breakdown, FocalSetting, LossAnatomy
from retina.instruments.anatomy.curves import PAPER_GAMMAS
from retina.instruments.anatomy.dominance import DominanceWatch
from retina.instruments.anatomy.measuring import level_names
from retina.instruments.anatomy.report import cumulative_losses
from retina.modeling.detector import RetinaNet
from retina.objective.assignment import Assigner
from retina.structures import Anchors, BatchedTargets, DensePredictions
from retina.training.metric_log import MetricLog
from retina.training.progress import TrainingProgress
from retina.training.step import Observer

MAX_CLASSES = 100
"""Of more classes only these many, with the most loss in the step, go into ``metrics.jsonl``, and
none into TensorBoard: six curves of each of a thousand classes help nobody."""


class AnatomyHook:
    """Takes the loss apart in every so many steps, and warns once where easy negatives dominate.

    Between those steps it costs nothing; in them it adds a pass over the logits, the assignment of
    one batch, and a wait for the device.

    Args:
        detector: says what levels there are.
        class_names: of the labels.
        assigner: of the criterion.
        parameters: of the classification loss.
        every_steps: how often; None never.
        total_steps: of the whole training.
        device: where it trains.
    """

    def __init__(
        self,
        *,
        detector: RetinaNet,
        class_names: tuple[str, ...],
        assigner: Assigner,
        parameters: FocalSetting,
        every_steps: int | None,
        total_steps: int,
        device: torch.device,
    ) -> None:
        self._assigner = assigner
        self._every_steps = every_steps
        self._watch = DominanceWatch(parameters, total_steps)
        self._meter = AnatomyMeter(level_names(detector), class_names, parameters, device)

    def _is_due(self, step: int) -> bool:
        # The first step, too: it shows what the initialization is worth.
        every = self._every_steps
        return every is not None and (step == 1 or step % every == 0)

    def observer(self, step: int) -> Observer | None:
        """What shall see the batches of this step, counted from 1."""
        return self._observe if self._is_due(step) else None

    def state_dict(self) -> dict[str, Any]:
        """What the warning depends on, for a checkpoint."""
        return self._watch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was seen of a step that was given up is forgotten."""
        self._watch.load_state_dict(state)
        self._meter.reset()

    def _observe(
        self, predictions: DensePredictions, anchors: Anchors, targets: BatchedTargets
    ) -> None:
        self._meter.add(predictions, self._assigner(anchors, targets), targets)

    def report(self, step: int, log: MetricLog | None, progress: TrainingProgress) -> None:
        """Log what this step's batches showed, all ranks together, if it was due."""
        if not self._is_due(step):
            return
        anatomy = self._meter.result()  # every rank takes part
        self._meter.reset()
        overall = anatomy.overall()
        warning = self._watch.look(step, overall)
        if warning is not None:
            progress.message(f"step {step}: {warning}")
        if log is None:
            return
        _write(log, step, anatomy, overall)
        if warning is not None:
            log.note("warning", step, warning)


def _write(log: MetricLog, step: int, anatomy: LossAnatomy, overall: Breakdown) -> None:
    log.scalars("anatomy", step, _shares(overall))
    levels = zip(anatomy.level_names, anatomy.per_level(), strict=True)
    log.per_level("anatomy", step, {name: _shares(part) for name, part in levels})
    _write_classes(log, step, anatomy)
    log.scalars("anatomy_hardest_percent", step, _hardest(anatomy))
    histogram = anatomy.histogram()
    log.histograms(
        "anatomy_p_t_logits",
        step,
        histogram.logit_edges,
        {"negatives": histogram.negatives, "positives": histogram.positives},
    )


def _write_classes(log: MetricLog, step: int, anatomy: LossAnatomy) -> None:
    classes = list(zip(anatomy.class_names, anatomy.per_class(), strict=True))
    has_few = len(classes) <= MAX_CLASSES
    if not has_few:
        classes = sorted(classes, key=lambda named: -named[1].loss)[:MAX_CLASSES]
    shares = {name: _shares(part) for name, part in classes}
    metrics = {
        metric: {name: own[metric] for name, own in shares.items()}
        for metric in next(iter(shares.values()))
    }
    log.per_class("anatomy", step, metrics, in_tensorboard=has_few)


def _hardest(anatomy: LossAnatomy) -> dict[str, float]:
    """The share of the loss in the hardest percent of the samples, by side and γ; NaN of none."""
    background, foreground = cumulative_losses(anatomy)
    return {
        f"{side}_gamma_{gamma:g}": curves.hardest.get(gamma, math.nan)
        for side, curves in (("background", background), ("foreground", foreground))
        for gamma in PAPER_GAMMAS
    }


def _shares(breakdown: Breakdown) -> dict[str, float]:
    parts = dict(zip(GROUPS, breakdown.parts, strict=True))
    return {f"{name}_loss_share": part.loss_share for name, part in parts.items()} | {
        f"{name}_gradient_share": part.gradient_share for name, part in parts.items()
    }
