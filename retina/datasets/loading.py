"""From the batch sampler's requests to batches in host memory, in workers or in this process."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from retina.configuration import Config
from retina.datasets.worker_faults import (
    HangGuard,
    death_of_worker,
    end_with_this_process,
    fault_of_workers,
    kill_workers,
)
from retina.errors import UserError
from retina.geometry.resizing import padded_size
from retina.structures import Batch, BatchedTargets, ImageBatch, Sample, SampleRequest, Size

T = TypeVar("T")

StartMethod = Literal["fork", "spawn", "forkserver"]


class LoaderConfig(Config):
    """How batches are made; a batch changes only where an image in it cannot be read."""

    start_method: StartMethod | None = None
    """How worker processes are started; unset, as the platform does by itself."""

    prefetch_factor: int = Field(default=2, ge=1)
    """Batches that each worker makes in advance."""

    timeout: float = Field(default=600.0, ge=0)
    """Seconds to wait for a batch of a worker before giving up; 0 waits for ever. (A slow network
    storage answers within minutes.)"""

    unreadable_images: Literal["error", "skip"] = "error"
    """What becomes of a training image whose file is damaged, gone, or of another size than
    annotated: `error` stops and names it; `skip` takes another image in its place and lists it in
    ``unreadable_images.jsonl``. In an evaluation it is an error always. See docs/faults.md."""

    max_unreadable_images: int = Field(default=100, ge=1)
    """How many different files `skip` passes over in a run before it is an error after all."""

    @property
    def max_unreadable(self) -> int:
        """How many files of the training set may be unreadable."""
        return self.max_unreadable_images if self.unreadable_images == "skip" else 0

    def build(
        self,
        dataset: Dataset[Sample],
        batches: Iterable[Sequence[SampleRequest]],
        collate: Callable[[Sequence[Sample]], T],
        *,
        num_workers: int,
        pin_memory: bool = False,
    ) -> SampleLoader[T]:
        """The loader of these batches.

        Args:
            dataset: a `DetectionDataset`.
            batches: this process's requests, one sequence a batch; a list, or a `BatchStream` that
                makes the requests of a whole run lazily in this process.
            collate: what becomes of the samples of a batch: `Collate` or `collate_images`.
            num_workers: worker processes; 0 loads in this one. The batches are the same for any
                number.
            pin_memory: put batches into page-locked memory, for a faster copy to a GPU.
        """
        workers: dict[str, Any] = {}
        if num_workers > 0:
            workers = {
                "worker_init_fn": _set_up_worker,
                "multiprocessing_context": self.start_method,
                "prefetch_factor": self.prefetch_factor,
            }
        loader: SampleLoader[T] = SampleLoader(
            dataset,  # type: ignore[arg-type]  # the collation makes T of its samples
            batch_sampler=batches,  # type: ignore[arg-type]  # the "indices" are requests
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else every loader would draw from the global one
            **workers,
        )
        loader.patience = self.timeout
        return loader


def collate(
    samples: Sequence[Sample], *, size_divisor: int = 32, pad_to: Size | None = None
) -> Batch:
    """Stack samples into one batch, padded with zeros at the right and the bottom.

    The padding is background like any other, so that its size counts in the loss: it is that of the
    whole global batch, whichever part of it these samples are.

    Args:
        samples: at least one.
        size_divisor: the padded height and width are multiples of it.
        pad_to: the padded size instead of the smallest that holds every sample and what the samples
            ask for.

    Returns:
        images uint8 (B, 3, H, W), channels-last in memory; M is the count of objects of the fullest
        image, at least 1.

    Raises:
        UserError: a sample does not fit into ``pad_to``.
    """
    sizes = tuple(sample.size for sample in samples)
    wanted = [sample.pad_at_least for sample in samples if sample.pad_at_least is not None]
    height, width = padded_size((*sizes, *wanted), size_divisor=size_divisor, pad_to=pad_to)
    pixels = torch.empty(len(samples), height, width, 3, dtype=torch.uint8)
    for place, sample, (h, w) in zip(pixels, samples, sizes, strict=True):
        place[:h, :w] = sample.image.permute(1, 2, 0)
        place[:h, w:] = 0
        place[h:] = 0
    return Batch(
        images=pixels.permute(0, 3, 1, 2),
        valid_sizes=torch.tensor(sizes, dtype=torch.int64),
        targets=BatchedTargets.from_targets([sample.targets for sample in samples]),
        image_ids=tuple(sample.image_id for sample in samples),
        image_sizes=sizes,
        unreadable=tuple(one for sample in samples for one in sample.unreadable),
    )


@dataclass(frozen=True, slots=True)
class Collate:
    """`collate` with its arguments bound; it can be sent to a spawned worker."""

    size_divisor: int
    pad_to: Size | None = None

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The batch of these samples; in shared memory where it is made in a worker."""
        return _handed_over(collate(samples, size_divisor=self.size_divisor, pad_to=self.pad_to))


def collate_images(samples: Sequence[Sample]) -> ImageBatch:
    """The samples one after the other, each image of its own size; otherwise as `Collate`."""
    rows = [sample.image.permute(1, 2, 0).reshape(-1) for sample in samples]
    return _handed_over(
        ImageBatch(
            pixels=torch.cat(rows),
            image_sizes=tuple(sample.size for sample in samples),
            targets=BatchedTargets.from_targets([sample.targets for sample in samples]),
            image_ids=tuple(sample.image_id for sample in samples),
        )
    )


B = TypeVar("B", Batch, ImageBatch)


def _handed_over(batch: B) -> B:
    """The batch, in shared memory where it is made in a worker.

    It would be moved there anyway, but by a thread whose errors nobody hears of: without room for
    it the batch would be lost, and the main process would wait for it for ever.
    """
    return batch if torch.utils.data.get_worker_info() is None else batch.share_memory()


class SampleLoader(DataLoader[T]):
    """A DataLoader that says what went wrong in a worker in one clear message.

    Attributes:
        patience: seconds that a batch of a worker may take; 0 waits for ever.
    """

    patience: float = 0.0

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]  # a plain iterator is enough
        """The batches, in the order of the requests.

        Raises:
            UserError: an image cannot be read; the message is the one that the worker raised.
            RunError: a worker died (killed for memory, say) or did not answer in time, or there is
                no shared memory, file or process left for them.
        """
        iterator: Iterator[T] = iter(())
        guard = HangGuard(iterator, 0)
        try:
            if self.num_workers > 0:
                # What PyTorch's queues are made of; where it fails inside them, they do not end
                # without a traceback.
                (self.multiprocessing_context or multiprocessing.get_context()).Semaphore()
            iterator = super().__iter__()
            end_with_this_process(iterator)
            guard = HangGuard(iterator, self.patience if self.num_workers else 0)
            with guard:
                while True:
                    with guard.waiting():
                        batch = next(iterator)
                    yield batch
        except StopIteration:
            return
        except UserError as error:
            raise UserError(original_message(error)) from error
        except (RuntimeError, OSError, EOFError) as error:
            fault = guard.fault() if guard.has_acted else fault_of_workers(error)
            if fault is None and isinstance(error, (OSError, EOFError)):
                fault = death_of_worker(iterator)
            if fault is None:
                raise
            kill_workers(iterator)
            raise fault from error


def original_message(error: UserError) -> str:
    """The message as a worker raised it, without the traceback that PyTorch puts into it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    kind = type(error)
    _, found, message = text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return message.rstrip("\n") if found else text


def _set_up_worker(worker_id: int) -> None:
    # One thread a worker: more of them would fight for the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; the main one decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A launcher sends SIGTERM to the whole group: the first one is the main process's to act on.
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
