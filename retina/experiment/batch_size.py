"""``training.batch_size: auto``: the largest batch that fits on the GPU, found by trying."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import collate
from retina.devices import is_out_of_memory
from retina.distributed import alone, gather_objects, is_distributed, world_size
from retina.errors import UserError
from retina.experiment.config import ExperimentConfig
from retina.experiment.setup import TrainingSetup, build_forward, instrument_hooks
from retina.modeling.detector import RetinaNet
from retina.structures import Batch, Sample, Size, Targets
from retina.training.forward import joined
from retina.training.generators import generator_states, restore_generators
from retina.training.hooks.averaging import WeightAverage
from retina.training.optimization import peak_learning_rate
from retina.training.step import TrainingStep
from retina.wording import counted

MARGIN = 0.1
"""The part of the free memory that stays free: what the evaluation, the allocator's fragments and
the libraries take beyond the steps that are tried."""

PROBED_DEVICES = ("cuda",)
"""Where memory ends with an error that can be caught; a CPU that is out of it kills the process."""

_STEPS = 2
"""The optimizer makes its state at the end of the first step, so that the second takes the most."""


@dataclass(frozen=True, slots=True)
class LargestImage:
    """The most that one image of a training can take.

    Attributes:
        size: padded (height, width) of the largest batch.
        num_objects: of the fullest image, crowd regions among them.
        num_crowd: crowd regions of the image that has the most.
    """

    size: Size
    num_objects: int
    num_crowd: int

    def batch(self, num_images: int) -> Batch:
        """So many of it, of noise."""
        generator = torch.Generator().manual_seed(0)
        height, width = self.size
        corners = torch.rand(self.num_objects, 2, 2, generator=generator).sort(dim=1).values
        targets = Targets(
            boxes=(corners * torch.tensor([width - 8, height - 8])).flatten(1)
            + torch.tensor([0, 0, 8, 8]),
            labels=torch.zeros(self.num_objects, dtype=torch.int64),
            is_crowd=torch.arange(self.num_objects) < self.num_crowd,
        )
        image = torch.randint(0, 256, (3, *self.size), dtype=torch.uint8, generator=generator)
        return collate([Sample(image, targets, image_id=0)] * num_images, size_divisor=1)


def largest_image(
    config: ExperimentConfig, dataset: DetectionDataset, batch_sampler: BatchSampler
) -> LargestImage:
    """The bounds that no batch of the training exceeds, whatever the augmentations do.

    Height and width are bounded each by itself: wide and upright images can meet in one batch.
    """
    height, width = batch_sampler.largest_size(keeps_aspect=config.augmentation.keeps_aspect)
    divisor = config.preprocess.size_divisor
    padded = -(-height // divisor) * divisor, -(-width // divisor) * divisor
    truth = dataset.ground_truth()
    images = 4 if config.augmentation.has_mosaic else 1
    return LargestImage(
        size=config.preprocess.pad_to or padded,
        num_objects=images * _most_of_an_image(truth.annotation_image_ids),
        num_crowd=images * _most_of_an_image(truth.annotation_image_ids[truth.is_crowd]),
    )


def _most_of_an_image(image_ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    return int(np.unique(image_ids, return_counts=True)[1].max(initial=0))


def largest_fitting(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number in 1..limit that fits, or 0: doubling, then halving what is left.

    Args:
        fits: says whether a number fits; where it does, every smaller one is taken to fit.
        limit: at least 1.
    """
    largest, too_large = 0, limit + 1
    while largest + 1 < too_large:
        tried = (largest + too_large) // 2
        if too_large > limit:
            tried = min(max(1, 2 * largest), limit)
        if fits(tried):
            largest = tried
        else:
            too_large = tried
    return largest


class StepProbe:
    """Says whether training steps of so many images fit, and leaves everything as it was.

    The steps are those of the training (forward, backward, update, and what hooks do with the
    predictions), of a copy of the detector, and of this process alone: where one of several
    processes runs out of memory, no other waits for it.

    Args:
        config: the experiment, its precision decided.
        detector: not yet on the device, so that it takes no memory there beside its copy.
        dataset: the training set.
        class_counts: for the losses that balance classes.
        image: what the batches are made of.
        device: where to try.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        detector: RetinaNet,
        dataset: DetectionDataset,
        class_counts: Sequence[int] | None,
        image: LargestImage,
        device: torch.device,
    ) -> None:
        self._config = config
        self._detector = detector
        self._dataset = dataset
        self._class_counts = class_counts
        self._image = image
        self._device = device
        self._has_replicas = is_distributed()

    def __call__(self, num_images: int) -> bool:
        """Whether micro-batches of so many images fit, with the margin."""
        generators = generator_states()
        try:
            with alone():
                return self._fits(num_images)
        finally:
            restore_generators(generators)
            _give_back(self._device)

    def _fits(self, num_images: int) -> bool:
        allowed = _allowed_bytes(self._device)
        try:
            self._train(num_images)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return allowed is None or torch.cuda.max_memory_reserved(self._device) <= allowed

    def _train(self, num_images: int) -> None:
        config, counts, training = self._config, self._class_counts, self._config.training
        detector = copy.deepcopy(self._detector).to(self._device)
        held: list[object] = []
        if training.average_decay is not None:
            held.append(WeightAverage(detector, training.average_decay))
        if self._has_replicas:  # the buckets in which gradients are averaged
            held.append([torch.empty_like(parameter) for parameter in detector.parameters()])
        forward = build_forward(config, detector, counts, self._device)
        step = TrainingStep(forward, config.optimizer.build(detector), clip_norm=training.clip_norm)
        setup = TrainingSetup(config, self._dataset, None, counts, forward, total_steps=1)
        hooks = instrument_hooks(setup)
        # The gradients of the micro-batches before take memory while one is computed.
        micro_batches = [self._image.batch(num_images)] * min(2, training.accumulation_steps)
        for _ in range(_STEPS):
            seen_by = joined([hook.before_step(1, micro_batches) for hook in hooks])
            result = step(micro_batches, forward_hook=seen_by)
            result.verdict.read()  # an error that comes late comes here


def _allowed_bytes(device: torch.device) -> int | None:
    """What the steps may reserve, all that this process has there included; None: not measured."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    free, _ = torch.cuda.mem_get_info(device)
    return int((1 - MARGIN) * (free + torch.cuda.memory_reserved(device)))


def _give_back(device: torch.device) -> None:
    """Free what an interrupted step held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def check_auto_batch(device: torch.device) -> None:
    """Refuse ``auto`` where it cannot be decided.

    Raises:
        UserError: the device is no GPU.
    """
    if device.type not in PROBED_DEVICES:
        raise UserError(
            f"training.batch_size: 'auto' needs a GPU, the device is {device}; write a number "
            "(training.batch_size=8)"
        )


def decide_batch_size(
    config: ExperimentConfig,
    *,
    detector: RetinaNet,
    dataset: DetectionDataset,
    batch_sampler: BatchSampler,
    class_counts: Sequence[int] | None,
    device: torch.device,
) -> tuple[ExperimentConfig, str]:
    """The config with the largest batch that fits; every rank must call it, and all agree.

    Args:
        config: the experiment, its precision decided.
        detector: not yet on the device.
        dataset: the training set.
        batch_sampler: of it, at any batch size.
        class_counts: for the losses that balance classes.
        device: where it trains.

    Returns:
        The config, and what is to be said about it.

    Raises:
        UserError: not even one image of each part fits.
    """
    image = largest_image(config, dataset, batch_sampler)
    probe = StepProbe(
        config,
        detector=detector,
        dataset=dataset,
        class_counts=class_counts,
        image=image,
        device=device,
    )
    parts = world_size() * config.training.accumulation_steps
    largest = largest_fitting(
        lambda count: all(gather_objects(probe(count))), max(1, batch_sampler.num_samples // parts)
    )
    what = (
        f"3 × {image.size[0]} × {image.size[1]} pixels and {counted(image.num_objects, 'object')}"
    )
    if not largest:
        raise UserError(
            f"training.batch_size: auto: not even one image of {what} fits on {device} with "
            f"{MARGIN:.0%} of its free memory left; lower preprocess.min_size and max_size, or "
            "free the device"
        )
    training = config.training.model_copy(update={"batch_size": largest * parts})
    shares = f"{largest} of up to {what} at a time"
    if parts > 1:
        steps = training.accumulation_steps
        shares += f", in {steps} micro-batch{'es' if steps > 1 else ''} on "
        shares += "one process" if world_size() == 1 else f"each of {world_size()} processes"
    return config.model_copy(update={"training": training}), (
        f"training.batch_size: auto took {largest * parts} images ({shares}). "
        f"{_about_the_rate(config, largest * parts)}"
    )


def _about_the_rate(config: ExperimentConfig, batch_size: int) -> str:
    optimizer = config.optimizer
    if optimizer.reference_batch_size is not None:
        return f"The learning rate goes up to {peak_learning_rate(optimizer, batch_size):.3g}"
    return (
        f"optimizer.lr {optimizer.lr:g} is used as it stands; if it was chosen for another batch "
        f"size, say 16, optimizer.reference_batch_size=16 scales it in proportion (to "
        f"{optimizer.lr * batch_size / 16:.3g})"
    )
