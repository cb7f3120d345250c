"""A detector of the config on a few real batches, to see what a training would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.loading import collate
from retina.devices import pick_device
from retina.errors import UserError
from retina.experiment import build_detector
from retina.experiment.checks import check_frozen
from retina.experiment.parts import build_batch_sampler
from retina.experiment.setup import build_forward
from retina.geometry.resizing import max_size_for
from retina.instruments.doctor.anchors.coverage import filled_images
from retina.instruments.doctor.context import CheckContext
from retina.runtime import TorchRuntime
from retina.runtime.splits import spread_indices
from retina.structures import Batch, SampleRequest, Size
from retina.training.optimization import set_learning_rate
from retina.training.step import TrainingStep


@dataclass(frozen=True, slots=True)
class Trial:
    """A fresh start of the training, whose weights nobody keeps.

    Attributes:
        step: applies an optimizer step.
        optimizer: of the step.
        runtime: runs the detector that the steps train.
    """

    step: TrainingStep
    optimizer: torch.optim.Optimizer
    runtime: TorchRuntime

    def advance(self, micro_batches: Sequence[Batch], lr: float) -> float:
        """One step; the loss before it. Waits for the device."""
        set_learning_rate(self.optimizer, lr)
        return float(self.step(micro_batches).losses.total)


def start_trial(context: CheckContext) -> Trial:
    """Build what `retina.experiment.build_experiment` builds of a step.

    Raises:
        UserError: there are no such weights, or no such device.
    """
    config, categories = context.config, context.train.categories
    check_frozen(config.model)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    detector = build_detector(config, categories)[0].to(device)
    needs_counts = config.objective.classification.needs_class_counts
    counts = context.train.class_counts() if needs_counts else None
    forward = build_forward(config, detector, counts, device)
    optimizer = config.optimizer.build(detector)
    runtime = TorchRuntime(
        detector,
        categories=categories,
        preprocess=forward.preprocess,
        postprocess=config.postprocess.build(detector.box_coder),
        device=device,
        precision=forward.precision,
        memory_fix="lower preprocess.min_size and max_size",
    )
    step = TrainingStep(forward, optimizer, clip_norm=config.training.clip_norm)
    return Trial(step, optimizer, runtime)


def batch_sampler_of(context: CheckContext) -> BatchSampler:
    """The training's batch sampler.

    Raises:
        UserError: not one batch can be made.
    """
    config = context.config
    context.train.augmentation = config.augmentation.build()
    return build_batch_sampler(config, context.train, config.training.decided_batch_size)


def first_batches(context: CheckContext, count: int) -> list[list[Batch]]:
    """The first global batches of the training in micro-batches, augmented as there."""
    requests = batch_sampler_of(context).epoch(0)[:count]
    return [load_micro_batches(context, batch) for batch in requests]


def load_micro_batches(context: CheckContext, requests: Sequence[SampleRequest]) -> list[Batch]:
    """The samples of a global batch, in as many micro-batches as a step accumulates."""
    count = min(context.config.training.accumulation_steps, len(requests))
    return [load_batch(context, requests[number::count]) for number in range(count)]


def load_batch(context: CheckContext, requests: Sequence[SampleRequest]) -> Batch:
    """The samples in one batch, loaded in this process."""
    size = context.config.preprocess
    samples = [context.train[request] for request in requests]
    return collate(samples, size_divisor=size.size_divisor, pad_to=size.pad_to)


def plain_requests(context: CheckContext, count: int) -> list[SampleRequest]:
    """Images with objects, spread over the split, as they are but for their size.

    Raises:
        UserError: no image has an object.
    """
    filled = filled_images(context.train)
    if not filled:
        raise UserError("no training image has an object")
    chosen = [filled[number] for number in spread_indices(len(filled), count)]
    return [
        SampleRequest(
            index=index,
            seed=0,
            max_size=_max_size(context, index),
            stretch=context.config.preprocess.stretch,
            augment=False,
        )
        for index in chosen
    ]


def _max_size(context: CheckContext, index: int) -> Size:
    size = context.config.preprocess
    if size.stretch:
        return size.min_size, size.max_size
    height, width = context.train.image_sizes[index].tolist()
    return max_size_for((height, width), size.min_size, size.max_size)
