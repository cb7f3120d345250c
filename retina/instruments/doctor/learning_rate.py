"""The learning rate: by arithmetic with rates that are known to work, and by a few real steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from retina.experiment import ExperimentConfig
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding, Number
from retina.instruments.doctor.start import starts_at_random
from retina.instruments.doctor.trial import Trial, first_batches, start_trial
from retina.structures import Batch
from retina.training.optimization import peak_learning_rate
from retina.wording import counted

_TOO_HIGH = 4.0
_FAR_TOO_HIGH = 8.0
_TOO_LOW = 1 / 4
"""Times the highest rate that is known to work, and times the lowest."""

_PROBE_STEPS = 24
_PROBE_WARM_UP = 6
_RISEN = 1.3
"""The loss counts as risen where its last quarter is so many times its first."""


@dataclass(frozen=True, slots=True)
class KnownRate:
    """A learning rate that is known to work.

    Attributes:
        lr: at the peak.
        batch_size: it is for.
        source: where it comes from.
    """

    lr: float
    batch_size: int
    source: str


_ADAMW = (
    KnownRate(1e-4, 16, "torchvision's second recipe"),
    KnownRate(2e-3, 8, "measured from random and from ImageNet weights"),
)
_SGD = (
    # Of the notebook that Detectron2's "Getting Started" points to: IMS_PER_BATCH 2, BASE_LR
    # 0.00025 for 300 steps from COCO weights; in proportion 0.002 at 16 images.
    KnownRate(0.00025, 2, "Detectron2's tutorial on fine-tuning"),
    # Section 4.1; as in Detectron2's Base-RetinaNet.yaml, and in torchvision's references/detection
    # for this model on 8 GPUs of 2 images. The 0.02 of both is for two-stage detectors.
    KnownRate(0.01, 16, "Lin et al. 2017"),
)
"""The lowest and the highest at which trainings came out well: what is between them is a matter of
data, network and length, which a rule knows too little about."""


def known_rates(config: ExperimentConfig) -> tuple[KnownRate, KnownRate]:
    """The lowest and the highest rate of the optimizer's kind that are known to work."""
    if config.optimizer.kind == "adamw":
        return _ADAMW
    # Without momentum a step is 1 / (1 - 0.9) times smaller.
    factor = (1 - config.optimizer.momentum) / (1 - 0.9)
    lowest, highest = (replace(rate, lr=rate.lr * factor) for rate in _SGD)
    return lowest, highest


def scaled_rate(known: KnownRate, config: ExperimentConfig) -> float:
    """A known rate at the batch size of the config.

    SGD's is scaled in proportion to the batch size (Goyal et al. 2017, section 2.1), Adam's to its
    square root (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient
    algorithms").
    """
    factor = config.training.decided_batch_size / known.batch_size
    return known.lr * (factor if config.optimizer.kind == "sgd" else math.sqrt(factor))


def check_learning_rate(context: CheckContext) -> CheckResult:
    """Compare the peak of the schedule with what is known to work at this batch size."""
    config = context.config
    kind, batch_size = config.optimizer.kind, config.training.decided_batch_size
    peak = peak_learning_rate(config.optimizer, batch_size)
    lowest, highest = (scaled_rate(known, config) for known in known_rates(config))
    return CheckResult(
        summary=f"{kind} {peak:.2g} at {counted(batch_size, 'image')}; known {lowest:.2g} to "
        f"{highest:.2g}",
        findings=(*_far_off(config, peak), *_batch_norm(config)),
        numbers={"peak": peak, "lowest": lowest, "highest": highest},
    )


def _far_off(config: ExperimentConfig, peak: float) -> Iterator[Finding]:
    lowest, highest = known_rates(config)
    is_high = peak >= _TOO_HIGH * scaled_rate(highest, config)
    if not is_high and peak >= _TOO_LOW * scaled_rate(lowest, config):
        return
    known = highest if is_high else lowest
    usual = scaled_rate(known, config)
    ratio = peak / usual
    kind, batch_size = config.optimizer.kind, config.training.decided_batch_size
    rule = "in proportion" if kind == "sgd" else "with its square root"
    end = f"{ratio:.1f} times the highest" if is_high else f"one {1 / ratio:.0f}th of the lowest"
    lr = _config_rate(config, usual)
    yield Finding(
        code="learning_rate_high" if is_high else "learning_rate_low",
        level="error" if ratio >= _FAR_TOO_HIGH else "warning",
        what=f"the learning rate {peak:.2g} is {end} that is known to work with {kind} at batch "
        f"size {batch_size}: {usual:.2g} ({known.lr:g} at {known.batch_size}, {known.source}; "
        f"scaled {rule})",
        why="The loss may rise, become NaN, or settle where nothing is detected."
        if is_high
        else "The training may end long before it has learned.",
        fix=f"Set optimizer.lr to {lr:.2g}.",
        patch={"optimizer": {"lr": lr}},
        numbers={"peak": peak, "usual": usual, "ratio": ratio},
    )


def _config_rate(config: ExperimentConfig, peak: float) -> float:
    """``optimizer.lr`` for a peak, in two digits; it may stand for another batch size."""
    reference = config.optimizer.reference_batch_size
    if reference is not None:
        peak = peak * reference / config.training.decided_batch_size
    return float(f"{peak:.2g}")


def _batch_norm(config: ExperimentConfig) -> Iterator[Finding]:
    """Live batch statistics of one or two images."""
    images = config.training.decided_batch_size // config.training.accumulation_steps
    if config.model.backbone.norm != "batch" or images > 2 or not _has_live_norms(config):
        return
    is_pretrained = not starts_at_random(config)
    yield Finding(
        code="batch_norm_small",
        level="warning",
        what=f"batch normalisation over {images} image{'s' if images > 1 else ''} at a time",
        why="Statistics of so few images are noise, and differ from those used to predict.",
        fix="Freeze the norms of the pretrained backbone."
        if is_pretrained
        else "Give it more images at a time (training.batch_size, less accumulation_steps).",
        patch={"model": {"backbone": {"norm": "frozen"}}} if is_pretrained else None,
        numbers={"images": images},
    )


def _has_live_norms(config: ExperimentConfig) -> bool:
    """Whether any batch normalisation of the backbone uses the statistics of the batch."""
    with torch.device("meta"):
        backbone = config.model.without_pretrained_weights().backbone.build().train()
    return any(isinstance(one, nn.BatchNorm2d) and one.training for one in backbone.modules())


def probe_learning_rate(context: CheckContext) -> CheckResult:
    """Warm up within a few steps, go on at the peak, and see whether the loss falls.

    The same steps are made at a tenth of the rate where it does not: only if they go well is it
    the rate.
    """
    batches = first_batches(context, 4)
    peak = peak_learning_rate(context.config.optimizer, context.config.training.decided_batch_size)
    losses = _descend(start_trial(context), batches, peak)
    first, last = _ends(losses)
    numbers: dict[str, Number] = {
        "first_loss": finite(first),
        "last_loss": finite(last),
        "steps": len(losses),
    }
    summary = f"loss {first:.2f} to {last:.2f} in {counted(len(losses), 'step')} at {peak:.2g}"
    if _is_falling(losses):
        return CheckResult(summary, (), numbers)
    gentle = _descend(start_trial(context), batches, peak / 10)
    numbers["last_loss_at_a_tenth"] = finite(_ends(gentle)[1])
    return CheckResult(summary, (_does_not_fall(context, losses, gentle, peak),), numbers)


def _does_not_fall(
    context: CheckContext, losses: Sequence[float], gentle: Sequence[float], peak: float
) -> Finding:
    first, last = _ends(losses)
    how = f"rises from {first:.2f} to {last:.2f}" if math.isfinite(last) else "becomes infinite"
    if not _is_falling(gentle):
        return Finding(
            code="loss_rises",
            level="error",
            what=f"the loss {how} in {counted(len(losses), 'step')}, and no better at a tenth "
            "of the rate",
            why="It is not the learning rate that is wrong.",
            fix="Look at the boxes in batch.png, the normalisation and the precision.",
            numbers={"first_loss": finite(first), "last_loss": finite(last)},
        )
    lr = _config_rate(context.config, peak / 10)
    return Finding(
        code="learning_rate_diverges",
        level="error",
        what=f"the loss {how} in {counted(len(losses), 'step')} at the learning rate "
        f"{peak:.2g}; at a tenth "
        f"of it, it ends at {_ends(gentle)[1]:.2f}",
        why="The training would diverge, or forget what the pretrained weights know.",
        fix=f"Lower optimizer.lr to {lr:g}.",
        patch={"optimizer": {"lr": lr}},
        numbers={"first_loss": finite(first), "last_loss": finite(last), "peak": peak},
    )


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


def finite(value: float) -> float | None:
    """The value, or None for what JSON cannot hold (NaN and infinity)."""
    return value if math.isfinite(value) else None
