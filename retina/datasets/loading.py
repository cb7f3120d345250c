"""From planned requests to batches in host memory, in worker processes or in this one."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from retina.configuration import Config
from retina.errors import RunError, UserError
from retina.structures import Batch, BatchedTargets, Sample, SampleRequest, Size

StartMethod = Literal["fork", "spawn", "forkserver"]


class LoaderConfig(Config):
    """How worker processes make batches; none of it changes a batch."""

    start_method: StartMethod | None = None
    """How worker processes are started; unset, as the platform does by itself."""

    prefetch_factor: int = Field(default=2, ge=1)
    """Batches that each worker makes in advance."""

    timeout: float = Field(default=0.0, ge=0)
    """Seconds to wait for a batch before giving up; 0 waits for ever."""

    def build(
        self,
        dataset: Dataset[Sample],
        batches: Iterable[Sequence[SampleRequest]],
        *,
        num_workers: int,
        size_divisor: int,
        pad_to: Size | None = None,
        pin_memory: bool = False,
    ) -> BatchLoader:
        """The loader of these batches: see `build_loader`."""
        return build_loader(
            dataset,
            batches,
            num_workers=num_workers,
            size_divisor=size_divisor,
            pad_to=pad_to,
            pin_memory=pin_memory,
            start_method=self.start_method,
            prefetch_factor=self.prefetch_factor,
            timeout=self.timeout,
        )


def collate(
    samples: Sequence[Sample], *, size_divisor: int = 32, pad_to: Size | None = None
) -> Batch:
    """Stack samples into one batch, padded with zeros at the right and the bottom.

    Args:
        samples: at least one.
        size_divisor: the padded height and width are multiples of it.
        pad_to: the padded size instead of the smallest that holds every sample.

    Returns:
        images uint8 (B, 3, H, W), channels-last in memory; M is the count of objects of the fullest
        image, at least 1.

    Raises:
        UserError: a sample does not fit into ``pad_to``.
    """
    sizes = tuple(sample.size for sample in samples)
    height, width = _padded_size(sizes, size_divisor, pad_to)
    pixels = torch.empty(len(samples), height, width, 3, dtype=torch.uint8)
    for canvas, sample, (h, w) in zip(pixels, samples, sizes, strict=True):
        canvas[:h, :w] = sample.image.permute(1, 2, 0)
        canvas[:h, w:] = 0
        canvas[h:] = 0
    targets = BatchedTargets.from_targets([sample.targets for sample in samples])
    return Batch(
        images=pixels.permute(0, 3, 1, 2),
        valid_sizes=torch.tensor(sizes, dtype=torch.int64),
        boxes=targets.boxes,
        labels=targets.labels,
        is_crowd=targets.is_crowd,
        is_object=targets.is_object,
        image_ids=tuple(sample.image_id for sample in samples),
        original_sizes=tuple(sample.original_size for sample in samples),
        image_sizes=sizes,
        crowd_rows=targets.crowd_rows,
    )


def _padded_size(sizes: Sequence[Size], size_divisor: int, pad_to: Size | None) -> Size:
    height, width = (max(size[side] for size in sizes) for side in (0, 1))
    if pad_to is None:
        return (
            -(-height // size_divisor) * size_divisor,
            -(-width // size_divisor) * size_divisor,
        )
    if height > pad_to[0] or width > pad_to[1]:
        raise UserError(
            f"an image of {height}×{width} pixels (height × width) does not fit into pad_to = "
            f"{pad_to[0]}×{pad_to[1]}: make pad_to larger, or min_size and max_size smaller"
        )
    return pad_to


@dataclass(frozen=True, slots=True)
class Collate:
    """`collate` with its arguments bound; it can be sent to a spawned worker."""

    size_divisor: int
    pad_to: Size | None

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The batch of these samples."""
        return collate(samples, size_divisor=self.size_divisor, pad_to=self.pad_to)


class BatchLoader(DataLoader[Batch]):
    """A DataLoader of batches that says what went wrong in a worker in one clear message."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a plain iterator is enough
        """The batches, in the planned order.

        Raises:
            UserError: an image cannot be read; the message is the one that the worker raised.
            RunError: a worker died (killed for memory, say) or did not answer in time.
        """
        try:
            yield from super().__iter__()
        except UserError as error:
            raise UserError(original_message(error)) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader"):
                raise
            raise RunError(
                f"{error}\nA process that loads data died or hung. It may have been out of memory "
                "or of shared memory (/dev/shm): try a smaller training.num_workers, or 0 to load "
                "in the main process."
            ) from error


def original_message(error: UserError) -> str:
    """The message as a worker raised it, without the traceback that PyTorch puts into it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    kind = type(error)
    _, found, message = text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return message.rstrip("\n") if found else text


def build_loader(
    dataset: Dataset[Sample],
    batches: Iterable[Sequence[SampleRequest]],
    *,
    num_workers: int,
    size_divisor: int,
    pad_to: Size | None = None,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
    prefetch_factor: int = 2,
    timeout: float = 0.0,
) -> BatchLoader:
    """A loader of planned batches.

    Args:
        dataset: a `DetectionDataset`.
        batches: this process's requests, one sequence a batch; a list, or a `BatchStream` that
            plans a whole run lazily in this process.
        num_workers: worker processes; 0 loads in this one. The batches are the same for any number.
        size_divisor: see `collate`.
        pad_to: see `collate`.
        pin_memory: put batches into page-locked memory, for a faster copy to a GPU.
        start_method: how workers are started; None leaves it to the platform.
        prefetch_factor: batches that each worker makes in advance.
        timeout: seconds to wait for a batch, 0 for ever.
    """
    workers: dict[str, Any] = {}
    if num_workers > 0:
        workers = {
            "worker_init_fn": _set_up_worker,
            "multiprocessing_context": start_method,
            "prefetch_factor": prefetch_factor,
            "timeout": timeout,
        }
    return BatchLoader(
        dataset,  # type: ignore[arg-type]  # the collation turns its samples into batches
        batch_sampler=batches,  # type: ignore[arg-type]  # the "indices" are requests
        collate_fn=Collate(size_divisor, pad_to),
        num_workers=num_workers,
        pin_memory=pin_memory,
        **workers,
    )


def _set_up_worker(worker_id: int) -> None:
    # One thread a worker: more of them would fight for the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; the main one decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A launcher sends SIGTERM to the whole group: the first one is the main process's to act on.
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
