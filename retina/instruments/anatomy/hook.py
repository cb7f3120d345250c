"""The anatomy of the classification loss while it is trained."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from retina.distributed import is_main_process
from retina.experiment.setup import TrainingSetup
from retina.instruments.anatomy import GROUPS, AnatomyMeter, Breakdown, LossAnatomy
from retina.instruments.anatomy.curves import PAPER_GAMMAS
from retina.instruments.anatomy.dominance import DominanceWatch
from retina.instruments.anatomy.measuring import level_names, trained_loss
from retina.instruments.anatomy.report import cumulative_losses
from retina.structures import Batch
from retina.training.forward import ForwardHook
from retina.training.metric_log import RunLog
from retina.training.run import Hook, TrainingRun
from retina.training.step import StepResult

MAX_CLASSES = 100
"""Of more classes only these many, with the most loss in the step, go into ``metrics.jsonl``, and
none into TensorBoard: six curves of each of a thousand classes help nobody."""


def make_hook(training: TrainingSetup) -> AnatomyHook | None:
    """The hook of a training; None where its config wants none."""
    every_steps = training.config.training.anatomy_every_steps
    if every_steps is None:
        return None
    forward = training.forward
    parameters = trained_loss(training.config.objective, training.class_counts).parameters
    return AnatomyHook(
        AnatomyMeter(
            level_names(forward.detector),
            training.train.categories.distinct_names,
            parameters,
            forward.device,
        ),
        DominanceWatch(parameters, training.total_steps),
        every_steps=every_steps,
    )


class AnatomyHook(Hook):
    """Takes the loss apart in every so many steps, and warns once where easy negatives dominate.

    Between those steps it costs nothing; in them it adds a pass over the logits, and a wait for the
    device.

    Args:
        meter: adds up what the classification loss is made of.
        dominance: decides about the warning.
        every_steps: how often, besides the first step.
    """

    name: ClassVar[str] = "anatomy"

    def __init__(
        self,
        meter: AnatomyMeter,
        dominance: DominanceWatch,
        *,
        every_steps: int,
    ) -> None:
        self._meter = meter
        self._dominance = dominance
        self._every_steps = every_steps

    def _is_due(self, step: int) -> bool:
        # The first step, too: it shows what the initialization is worth.
        return step == 1 or step % self._every_steps == 0

    def before_step(self, step: int, micro_batches: list[Batch]) -> ForwardHook | None:
        """What shall see the batches of the step, if it is due."""
        return self._meter.add if self._is_due(step) else None

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        """Record what this step's batches showed, all ranks together, if it was due."""
        if not self._is_due(run.step):
            return
        anatomy = self._meter.result()  # every rank takes part
        self._meter.reset()
        overall = anatomy.overall()
        warning = self._dominance.update(run.step, overall)
        if warning is not None:
            run.progress.message(f"step {run.step}: {warning}")
        if is_main_process():
            _write(run.log, run.step, anatomy, overall)
        if warning is not None:
            run.log.record("warning", run.step, warning)

    def state_dict(self) -> dict[str, Any]:
        """What the warning depends on."""
        return self._dominance.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was seen of a step that was given up is forgotten."""
        self._dominance.load_state_dict(state)
        self._meter.reset()


def _write(log: RunLog, step: int, anatomy: LossAnatomy, overall: Breakdown) -> None:
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


def _write_classes(log: RunLog, step: int, anatomy: LossAnatomy) -> None:
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
