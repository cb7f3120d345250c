"""The learning rate against the batch size, by arithmetic with settings that are known to work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from retina.experiment import ExperimentConfig
from retina.instruments.doctor.findings import Examined, Finding
from retina.instruments.doctor.subject import Subject
from retina.training.optimization import AdamWConfig, SGDConfig, peak_learning_rate

_TOO_HIGH = 4.0
_FAR_TOO_HIGH = 8.0
_TOO_LOW = 1 / 30


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


def known_rate(config: ExperimentConfig) -> KnownRate:
    """The published rate for this kind of optimizer and this kind of start."""
    if isinstance(config.optimizer, SGDConfig):
        # Without momentum a step is 1 / (1 - 0.9) times smaller.
        lr = 0.01 * (1 - config.optimizer.momentum) / (1 - 0.9)
        return KnownRate(lr, 16, "Lin et al. 2017")
    if config.model.backbone.weights is None and config.model.initialize_from is None:
        return KnownRate(2e-3, 8, "configs/nano.yaml, from scratch")
    return KnownRate(1e-4, 16, "torchvision's second recipe")


def expected_rate(optimizer: SGDConfig | AdamWConfig, known: KnownRate, batch_size: int) -> float:
    """The known rate at another batch size.

    SGD: in proportion to it (Goyal et al. 2017, section 2.1). Adam: to its square root (Malladi et
    al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms").
    """
    factor = batch_size / known.batch_size
    return known.lr * (factor if isinstance(optimizer, SGDConfig) else math.sqrt(factor))


def check_learning_rate(subject: Subject) -> Examined:
    """Compare the peak of the schedule with what is known to work at this batch size."""
    config = subject.config
    batch_size = config.training.decided_batch_size
    peak = peak_learning_rate(config.optimizer, batch_size)
    known = known_rate(config)
    expected = expected_rate(config.optimizer, known, batch_size)
    return Examined(
        summary=f"{config.optimizer.kind} {peak:.2g} at {batch_size} images; usual {expected:.2g}",
        findings=(*_far_off(config, peak, known, expected), *_batch_norm(config)),
        numbers={"peak": peak, "usual": expected, "ratio": peak / expected},
    )


def _far_off(
    config: ExperimentConfig, peak: float, known: KnownRate, expected: float
) -> Iterator[Finding]:
    ratio = peak / expected
    if _TOO_LOW <= ratio < _TOO_HIGH:
        return
    is_high = ratio >= _TOO_HIGH
    kind, batch_size = config.optimizer.kind, config.training.decided_batch_size
    rule = "in proportion" if kind == "sgd" else "with its square root"
    severity = "severe" if ratio >= _FAR_TOO_HIGH else "warning"
    times = f"{ratio:.1f} times" if is_high else f"one {1 / ratio:.0f}th of"
    yield Finding(
        code="learning_rate_high" if is_high else "learning_rate_low",
        severity="severe" if severity == "severe" else "warning",
        what=f"the learning rate {peak:.2g} is {times} what works with {kind} at batch size "
        f"{batch_size}: {expected:.2g} ({known.lr:g} at {known.batch_size}, {known.source}; scaled "
        f"{rule})",
        why="The loss may rise, become NaN, or settle where nothing is detected."
        if is_high
        else "The training may end long before it has learned.",
        remedy=f"Set optimizer.lr to {lr_key(config, expected):.2g}.",
        patch={"optimizer": {"lr": float(f"{lr_key(config, expected):.2g}")}},
        numbers={"peak": peak, "usual": expected, "ratio": ratio},
    )


def lr_key(config: ExperimentConfig, peak: float) -> float:
    """What ``optimizer.lr`` must be for a peak: it may stand for another batch size."""
    reference = config.optimizer.reference_batch_size
    return peak if reference is None else peak * reference / config.training.decided_batch_size


def _batch_norm(config: ExperimentConfig) -> Iterator[Finding]:
    """Live batch statistics of one or two images."""
    images = config.training.decided_batch_size // config.training.accumulation_steps
    if config.model.backbone.norm != "batch" or images > 2:
        return
    is_pretrained = config.model.backbone.weights is not None
    yield Finding(
        code="batch_norm_small",
        severity="warning",
        what=f"batch normalisation over {images} image{'s' if images > 1 else ''} at a time",
        why="Statistics of so few images are noise, and differ from those used to predict.",
        remedy="Freeze the norms of the pretrained backbone."
        if is_pretrained
        else "Give it more images at a time (training.batch_size, less accumulation_steps).",
        patch={"model": {"backbone": {"norm": "frozen"}}} if is_pretrained else None,
        numbers={"images": images},
    )
