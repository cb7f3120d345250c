"""Optimizers and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from retina.configuration import Config

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


BACKBONE = "backbone."
"""How the names of a detector's backbone begin."""


def parameter_groups(
    module: nn.Module,
    *,
    weight_decay: float,
    norm_weight_decay: float,
    backbone_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Trainable parameters in groups: weights, and norms with biases; apart where rates differ.

    A parameter with fewer than two dimensions is a bias or belongs to a norm. A group whose rate is
    not that of the schedule says its factor under ``lr_factor``.
    """
    own: list[nn.Parameter] = []
    backbone: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_slower = backbone_lr_factor != 1.0 and name.startswith(BACKBONE)
            (backbone if is_slower else own).append(parameter)
    decays = ((True, weight_decay), (False, norm_weight_decay))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if (p.ndim > 1) is is_weight], "weight_decay": decay}
        | factor
        for parameters, factor in ((own, {}), (backbone, {"lr_factor": backbone_lr_factor}))
        for is_weight, decay in decays
    ]
    return [group for group in groups if group["params"]]


class SGDConfig(Config):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01
    """Peak learning rate, for a batch of ``reference_batch_size`` where that is given."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """The share of itself that the running sum of the gradients keeps at each step; 0 for none."""
    nesterov: bool = False
    """Take the gradient's momentum one step ahead (Nesterov); needs a momentum above 0."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty of weights of two dimensions or more (convolutions), added to their gradient."""
    norm_weight_decay: NonNegative = 0.0
    """The same for norms and biases."""
    backbone_lr_factor: Positive = 1.0
    """What the learning rate of the backbone is multiplied with: pretrained weights need less of it
    than fresh ones."""
    reference_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Scale the learning rate linearly by batch size / this (Goyal et al. 2017); null: never."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the module's trainable parameters."""
        groups = parameter_groups(
            module,
            weight_decay=self.weight_decay,
            norm_weight_decay=self.norm_weight_decay,
            backbone_lr_factor=self.backbone_lr_factor,
        )
        optimizer = torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )
        set_learning_rate(optimizer, self.lr)
        return optimizer


class AdamWConfig(Config):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-4
    """Peak learning rate, for a batch of ``reference_batch_size`` where that is given."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """How much of the running means of the gradient and of its square is kept at each step."""
    weight_decay: NonNegative = 0.05
    """Decoupled decay of weights of two dimensions or more (convolutions), times the rate."""
    norm_weight_decay: NonNegative = 0.0
    """The same for norms and biases."""
    backbone_lr_factor: Positive = 1.0
    """What the learning rate of the backbone is multiplied with: pretrained weights need less of it
    than fresh ones."""
    reference_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Scale the learning rate linearly by batch size / this (Goyal et al. 2017); null: never."""

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the module's trainable parameters."""
        groups = parameter_groups(
            module,
            weight_decay=self.weight_decay,
            norm_weight_decay=self.norm_weight_decay,
            backbone_lr_factor=self.backbone_lr_factor,
        )
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)
        set_learning_rate(optimizer, self.lr)
        return optimizer


OptimizerConfig = Annotated[SGDConfig | AdamWConfig, Field(discriminator="kind")]


def peak_learning_rate(config: SGDConfig | AdamWConfig, batch_size: int) -> float:
    """The learning rate after warm-up, scaled to the batch size where the config asks for it."""
    if config.reference_batch_size is None:
        return config.lr
    return config.lr * batch_size / config.reference_batch_size


LRFactor = Callable[[int], float]
"""The learning rate at an optimizer step (from 0), as a factor of the peak."""


class WarmUp(Config):
    """Linear growth of the learning rate over the first steps."""

    steps: Annotated[int, Field(ge=0)] = 500
    """How many optimizer steps; at most half of the training."""
    start_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.001
    """Where it starts, as a factor of the peak."""

    def steps_of(self, total_steps: int) -> int:
        """How many of a training's steps are warm-up; the one after them is the first at the peak.

        None of a training of a single step.
        """
        return min(self.steps, total_steps // 2)

    def factor(self, step: int, total_steps: int) -> float:
        """The factor at a step: ``start_factor`` at step 0, 1 from the last warm-up step on."""
        steps = self.steps_of(total_steps)
        if step >= steps:
            return 1.0
        return self.start_factor + (1 - self.start_factor) * step / steps


class MultiStepConfig(Config):
    """Warm-up, then drops at fractions of the training; the first step after it has the peak."""

    kind: Literal["multi_step"] = "multi_step"
    warm_up: WarmUp = WarmUp()
    """How the rate grows over the first optimizer steps."""
    drops: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = (2 / 3, 8 / 9)
    """When the rate drops, as fractions of all steps (60k and 80k of 90k)."""
    drop_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """What each drop multiplies the rate by."""

    def build(self, total_steps: int) -> LRFactor:
        """The learning rate at every step, as a factor of the peak."""
        peak = self.warm_up.steps_of(total_steps)
        at = [max(round(fraction * total_steps), peak + 1) for fraction in self.drops]

        def factor(step: int) -> float:
            passed = sum(step >= drop for drop in at)
            return self.warm_up.factor(step, total_steps) * self.drop_factor**passed

        return factor


class CosineConfig(Config):
    """Warm-up, then half a cosine down to ``final_factor`` (Loshchilov and Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    warm_up: WarmUp = WarmUp()
    """How the rate grows over the first optimizer steps."""
    final_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Where it ends, as a factor of the peak."""

    def build(self, total_steps: int) -> LRFactor:
        """The learning rate at every step, as a factor of the peak."""
        warm = self.warm_up.steps_of(total_steps)

        def factor(step: int) -> float:
            if step < warm:
                return self.warm_up.factor(step, total_steps)
            progress = min(1.0, (step - warm) / max(1, total_steps - 1 - warm))
            return _half_cosine(1.0, self.final_factor, progress)

        return factor


class OneCycleConfig(Config):
    """Up and down again in half cosines (Smith and Topin 2018), as torch's OneCycleLR; the way up
    takes a step at least, so that a short training reaches the peak as well.
    """  # noqa: D205

    kind: Literal["one_cycle"] = "one_cycle"
    warm_up_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """The share of all steps on the way up."""
    start_factor: Positive = 1 / 25
    """Where it starts, as a factor of the peak."""
    final_factor: NonNegative = 1 / 250_000
    """Where it ends, as a factor of the peak."""

    def build(self, total_steps: int) -> LRFactor:
        """The learning rate at every step, as a factor of the peak."""
        last = total_steps - 1
        # A step up and one down; of two steps the second, of one the only one is the top.
        top = min(max(self.warm_up_fraction * total_steps - 1, 1), max(last - 1, 1), last)

        def factor(step: int) -> float:
            if step < top:
                return _half_cosine(self.start_factor, 1.0, step / top)
            progress = min(1.0, (step - top) / max(1e-9, last - top))
            return _half_cosine(1.0, self.final_factor, progress)

        return factor


ScheduleConfig = Annotated[
    MultiStepConfig | CosineConfig | OneCycleConfig, Field(discriminator="kind")
]


def settling_step(factor: LRFactor, total_steps: int) -> int:
    """The step from which on the learning rate stays at or below half of its peak, from 0.

    It is the first at the peak where the rate never falls so far.
    """
    if factor(total_steps - 1) > 0.5:
        return max(range(total_steps), key=factor)
    return next((at + 1 for at in reversed(range(total_steps)) if factor(at) > 0.5), 0)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the rate, times its own factor where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
