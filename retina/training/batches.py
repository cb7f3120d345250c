"""The batches of a training, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retina.datasets.batch_sampling import BatchSampler, BatchStream
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import Collate, LoaderConfig
from retina.distributed import rank, world_size
from retina.structures import Batch


@dataclass(frozen=True, slots=True)
class TrainingBatches:
    """This rank's share of every global batch.

    Attributes:
        dataset: the training set, with its augmentation.
        sampler: which images make up which batch.
        loader: how they are loaded.
        collate: how they are stacked.
        num_workers: processes that load images.
        num_micro_batches: in how many a step computes its share.
        pin_memory: load into page-locked memory, for a faster copy to a GPU.
    """

    dataset: DetectionDataset
    sampler: BatchSampler
    loader: LoaderConfig
    collate: Collate
    num_workers: int
    num_micro_batches: int
    pin_memory: bool

    def between(self, first_step: int, stop_step: int) -> Iterator[Batch]:
        """The micro-batches of the steps from one on, until before the other, counted from 0."""
        stream = BatchStream(
            self.sampler,
            first_step=first_step,
            stop_step=stop_step,
            rank=rank(),
            world_size=world_size(),
            num_micro_batches=self.num_micro_batches,
        )
        loader = self.loader.build(
            self.dataset,
            stream,
            self.collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
        )
        return iter(loader)
