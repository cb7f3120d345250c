"""A detector of the config on a few real batches, to see what a training would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.loading import collate
from retina.devices import Precision, pick_device, pick_precision
from retina.errors import UserError
from retina.experiment import build_detector
from retina.experiment.checks import check_frozen
from retina.experiment.setup import build_forward
from retina.geometry.resizing import max_size_for
from retina.instruments.doctor.coverage.measuring import filled_images
from retina.instruments.doctor.subject import Subject
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion
from retina.structures import Batch, SampleRequest, Size
from retina.training.optimization import set_learning_rate
from retina.training.step import TrainingStep


@dataclass(frozen=True, slots=True)
class Trial:
    """A fresh start of the training, whose weights nobody keeps.

    Attributes:
        detector: on its device.
        preprocess: on the same device.
        criterion: on the same device.
        step: applies an optimizer step.
        optimizer: of the step.
        device: where it computes.
        precision: of the network.
    """

    detector: RetinaNet
    preprocess: Preprocess
    criterion: Criterion
    step: TrainingStep
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: Precision

    def advance(self, parts: Sequence[Batch], lr: float) -> float:
        """One step; the loss before it. Waits for the device."""
        set_learning_rate(self.optimizer, lr)
        return float(self.step(parts).losses.total)


def start_trial(subject: Subject) -> Trial:
    """Build what `retina.experiment.build_experiment` builds of a step.

    Raises:
        UserError: there are no such weights, or no such device.
    """
    config = subject.config
    check_frozen(config.model)
    device = pick_device(config.device)
    precision = pick_precision(config.training.precision, device)
    torch.manual_seed(config.seed)
    detector = build_detector(config, subject.train.categories)[0].to(device)
    needs_counts = config.objective.classification.needs_class_counts
    counts = subject.train.class_counts() if needs_counts else None
    forward = build_forward(config, detector, counts, device)
    optimizer = config.optimizer.build(detector)
    step = TrainingStep(forward, optimizer, clip_norm=config.training.clip_norm)
    return Trial(
        detector, forward.preprocess, forward.criterion, step, optimizer, device, precision
    )


def batch_sampler_of(subject: Subject) -> BatchSampler:
    """The plan of the training.

    Raises:
        UserError: not one batch can be made.
    """
    config = subject.config
    subject.train.augmentation = config.augmentation.build()
    return config.sampling.build(
        subject.train,
        batch_size=config.training.decided_batch_size,
        seed=config.seed,
        min_size=config.preprocess.min_size,
        max_size=config.preprocess.max_size,
        stretch=config.preprocess.stretch,
        multi_scale=config.augmentation.multi_scale,
    )


def load_parts(subject: Subject, requests: Sequence[SampleRequest]) -> list[Batch]:
    """The samples of a global batch, in as many parts as a step accumulates."""
    parts = min(subject.config.training.accumulation_steps, len(requests))
    return [load_batch(subject, requests[number::parts]) for number in range(parts)]


def load_batch(subject: Subject, requests: Sequence[SampleRequest]) -> Batch:
    """The samples in one batch, loaded in this process."""
    size = subject.config.preprocess
    samples = [subject.train[request] for request in requests]
    return collate(samples, size_divisor=size.size_divisor, pad_to=size.pad_to)


def plain_requests(subject: Subject, count: int) -> list[SampleRequest]:
    """Images with objects, spread over the split, as they are but for their size.

    Raises:
        UserError: no image has an object.
    """
    filled = filled_images(subject.train)
    if not filled:
        raise UserError("no training image has an object")
    count = min(count, len(filled))
    chosen = [filled[number * len(filled) // count] for number in range(count)]
    size = subject.config.preprocess
    return [
        SampleRequest(
            index=index,
            seed=0,
            max_size=_max_size(subject, index),
            stretch=size.stretch,
            augment=False,
        )
        for index in chosen
    ]


def _max_size(subject: Subject, index: int) -> Size:
    size = subject.config.preprocess
    if size.stretch:
        return size.min_size, size.max_size
    height, width = subject.train.image_sizes[index].tolist()
    return max_size_for((height, width), size.min_size, size.max_size)
