"""The anatomy of the classification loss while it is trained."""

from __future__ import annotations

import torch

from retina.analysis.anatomy import GROUPS, AnatomyMeter, Breakdown, FocalParameters, LossAnatomy
from retina.analysis.anatomy.dominance import DominanceWatch
from retina.analysis.anatomy.measuring import level_names
from retina.modeling.detector import RetinaNet
from retina.objective.assignment import Assigner
from retina.structures import Anchors, BatchedTargets, DensePredictions
from retina.training.metric_log import MetricLog
from retina.training.progress import TrainingProgress
from retina.training.step import Observer


class TrainingAnatomy:
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
        parameters: FocalParameters,
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
    histogram = anatomy.histogram()
    log.histograms(
        "anatomy_p_t_logits",
        step,
        histogram.logit_edges,
        {"negatives": histogram.negatives, "positives": histogram.positives},
    )


def _shares(breakdown: Breakdown) -> dict[str, float]:
    parts = dict(zip(GROUPS, breakdown.parts, strict=True))
    return {f"{name}_loss_share": part.loss_share for name, part in parts.items()} | {
        f"{name}_gradient_share": part.gradient_share for name, part in parts.items()
    }
