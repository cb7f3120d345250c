"""Which images make up which batch, decided for all processes at once.

The batches of an epoch are a pure function of the seed and the epoch, which knows neither workers
nor ranks: the same seed gives the same batches however many of them share the work, and a run can
be resumed at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retina.geometry.resizing import fit_into, max_size_for
from retina.structures import BoolArray, FloatArray, IntArray, SampleRequest, Size


class BatchSampler:
    """Makes the global batches of an epoch.

    Every image is seen exactly once an epoch, or with ``repeat_factors`` as often as its factor
    rounded down or up at random. The number of samples of an epoch is always the same.

    With aspect buckets a batch holds either wide (and square) or upright images. What does not fill
    a batch in either bucket is put together, wide images first, into the last batches of the epoch:
    at most one batch is mixed, and only the very last may be short.

    Args:
        image_sizes: ``(I, 2)`` height and width of the images.
        batch_size: images of a global batch.
        seed: of the run, not negative.
        sizes: ``(min_size, max_size)`` choices; every global batch draws one.
        stretch: take ``(min_size, max_size)`` as the exact height and width of every image.
        aspect_buckets: whether to part wide and upright images (pointless when stretching).
        shuffle: draw the images in a new random order every epoch.
        repeat_factors: ``(I,)`` how often to show an image an epoch: at least 1, or 0 to leave it
            out.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self,
        *,
        image_sizes: IntArray,
        batch_size: int,
        seed: int,
        sizes: Sequence[tuple[int, int]],
        stretch: bool = False,
        aspect_buckets: bool = True,
        shuffle: bool = True,
        repeat_factors: FloatArray | None = None,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, is {batch_size}")
        if not sizes:
            raise ValueError("sizes must hold at least one (min_size, max_size)")
        self._image_sizes = [(int(height), int(width)) for height, width in image_sizes]
        self._batch_size = batch_size
        self._seed = seed
        self._sizes = tuple(sizes)
        self._stretch = stretch
        self._shuffle = shuffle
        self._drop_last = drop_last
        wide = np.array([width >= height for height, width in self._image_sizes], dtype=bool)
        self._wide = wide if aspect_buckets and not stretch else np.ones_like(wide)
        factors = np.ones(len(wide)) if repeat_factors is None else repeat_factors
        if factors.shape != wide.shape or ((factors < 1) & (factors != 0)).any():
            raise ValueError("repeat_factors must give one number of at least 1, or 0, per image")
        self._whole_repeats = np.floor(factors).astype(np.int64)
        # The parts are scaled by a hair so that they sum up to a whole number: the schedule needs
        # to know the steps of an epoch in advance.
        parts = factors - self._whole_repeats
        self._extra = round(float(parts.sum()))
        self._parts = parts * (self._extra / parts.sum()) if self._extra else np.zeros_like(parts)

    @property
    def num_samples(self) -> int:
        """The samples of any epoch (those of a dropped last batch included)."""
        return int(self._whole_repeats.sum()) + self._extra

    @property
    def num_batches(self) -> int:
        """The global batches of any epoch."""
        full, rest = divmod(self.num_samples, self._batch_size)
        return full + (1 if rest and not self._drop_last else 0)

    def largest_size(self, *, keeps_aspect: bool) -> Size:
        """The height and the width that no image of any epoch exceeds, each for itself.

        Args:
            keeps_aspect: every image keeps its aspect ratio until it is resized; else it may get
                as large as its request's ``max_size``.
        """
        if self._stretch:
            return max(h for h, _ in self._sizes), max(w for _, w in self._sizes)
        sizes = []
        for size in {*self._image_sizes}:
            for scale in self._sizes:
                limit = max_size_for(size, *scale)
                sizes.append(fit_into(size, limit) if keeps_aspect else limit)
        return max(h for h, _ in sizes), max(w for _, w in sizes)

    def epoch(self, epoch: int) -> list[list[SampleRequest]]:
        """The global batches of an epoch, counted from 0."""
        streams = np.random.SeedSequence((self._seed, epoch)).spawn(4)
        indices = self._draw(np.random.default_rng(streams[0]))
        seeds = (streams[1].generate_state(len(indices), np.uint64) >> np.uint64(1)).tolist()
        order = np.arange(len(indices))
        if self._shuffle:
            order = np.random.default_rng(streams[2]).permutation(order)
        batches = self._group(order, self._wide[indices])
        choices = np.random.default_rng(streams[3]).integers(len(self._sizes), size=len(batches))
        return [
            self._requests([(int(indices[at]), seeds[at]) for at in batch], self._sizes[choice])
            for batch, choice in zip(batches, choices, strict=True)
        ]

    def _requests(
        self, images: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> list[SampleRequest]:
        """A global batch of these images, each with its seed."""
        limits = [self._max_size(index, size) for index, _ in images]
        resized = [
            limit if self._stretch else fit_into(self._image_sizes[index], limit)
            for (index, _), limit in zip(images, limits, strict=True)
        ]
        pad_at_least = max(h for h, _ in resized), max(w for _, w in resized)
        return [
            SampleRequest(
                index=index,
                seed=seed,
                max_size=limit,
                stretch=self._stretch,
                pad_at_least=pad_at_least,
            )
            for (index, seed), limit in zip(images, limits, strict=True)
        ]

    def _draw(self, generator: np.random.Generator) -> IntArray:
        """The images of an epoch, ascending, repeated ones several times."""
        counts = self._whole_repeats
        if self._extra:
            # Systematic sampling: every part is rounded up with its own probability, yet the sum
            # never varies. A random order keeps neighbours independent of each other.
            order = generator.permutation(len(counts))
            sums = np.minimum(np.cumsum(self._parts[order]), self._extra)
            sums[-1] = self._extra
            ticks = np.floor(sums + generator.random() * (1 - 1e-9))
            ups = np.diff(ticks, prepend=0).astype(np.int64)
            counts = counts.copy()
            counts[order] += ups
        return np.repeat(np.arange(len(counts)), counts)

    def _group(self, order: IntArray, wide: BoolArray) -> list[IntArray]:
        """Cut a drawing order into batches of positions, by the rule of the class."""
        full: list[tuple[int, IntArray]] = []
        leftovers: list[IntArray] = []
        for member in (True, False):
            turns = np.flatnonzero(wide[order] == member)
            end = len(turns) - len(turns) % self._batch_size
            for chunk in turns[:end].reshape(-1, self._batch_size):
                full.append((int(chunk[-1]), order[chunk]))
            leftovers.append(order[turns[end:]])
        full.sort(key=lambda item: item[0])  # a batch comes when its last image is drawn
        batches = [batch for _, batch in full]
        rest = np.concatenate(leftovers)
        for start in range(0, len(rest), self._batch_size):
            batches.append(rest[start : start + self._batch_size])
        if self._drop_last and batches and len(batches[-1]) < self._batch_size:
            batches.pop()
        return batches

    def _max_size(self, index: int, size: tuple[int, int]) -> Size:
        return size if self._stretch else max_size_for(self._image_sizes[index], *size)


def rank_share(
    global_batch: Sequence[SampleRequest], rank: int, world_size: int
) -> list[SampleRequest]:
    """The part of a global training batch that a rank computes: near-even, in order.

    No rank is left without a sample, since it would hang the others: where a batch holds fewer
    samples than there are ranks, the ranks beyond repeat its samples. That happens in the last
    batch of an epoch only; ``drop_last`` avoids it. (For evaluation, where nothing may count
    twice, use `evaluation_batches`.)
    """
    count = len(global_batch)
    if count < world_size:
        return [global_batch[rank % count]]
    return list(global_batch[rank * count // world_size : (rank + 1) * count // world_size])


@dataclass(frozen=True, slots=True)
class BatchStream:
    """One rank's batches of a whole run, across epochs, made when they are needed.

    A loader over a stream keeps its workers and reads ahead over the end of an epoch.

    Attributes:
        batch_sampler: makes the global batches.
        first_step: the number of the first batch, counted over all epochs from 0.
        stop_step: the number of the batch after the last.
        rank: whose share of each batch.
        world_size: how many ranks share a batch.
        num_micro_batches: in how many batches, one after the other, the rank computes its share
            (gradient accumulation).
    """

    batch_sampler: BatchSampler
    first_step: int
    stop_step: int
    rank: int = 0
    world_size: int = 1
    num_micro_batches: int = 1

    def __len__(self) -> int:
        return max(0, self.stop_step - self.first_step) * self.num_micro_batches

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        step, count = self.first_step, self.num_micro_batches
        while step < self.stop_step:
            epoch, done = divmod(step, self.batch_sampler.num_batches)
            for batch in self.batch_sampler.epoch(epoch)[done : done + self.stop_step - step]:
                for share in range(self.rank * count, (self.rank + 1) * count):
                    yield rank_share(batch, share, self.world_size * count)
                step += 1


def evaluation_batches(
    num_images: int, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> list[list[SampleRequest]]:
    """Batches of a rank that show every image once, in order, as it is on disk.

    Args:
        num_images: of the data set.
        batch_size: images of a batch of this rank.
        rank: whose images; every rank takes a contiguous, near-even part, which may be empty.
        world_size: how many ranks share the images.
    """
    mine = range(rank * num_images // world_size, (rank + 1) * num_images // world_size)
    return plain_batches(mine, batch_size)


def plain_batches(indices: Sequence[int], batch_size: int) -> list[list[SampleRequest]]:
    """Batches of images in the given order, as they are on disk."""
    requests = [
        SampleRequest(index=index, seed=0, max_size=None, augment=False) for index in indices
    ]
    return [requests[start : start + batch_size] for start in range(0, len(requests), batch_size)]
