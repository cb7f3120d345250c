"""Running out of memory, told in terms of the config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from retina.errors import RunError
from retina.structures import Batch
from retina.training.divergence_report import kept_checkpoint

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What the RuntimeErrors of torch's allocators and of cuDNN and cuBLAS say, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, the device's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def naming_the_batch(
    parts: Sequence[Batch], *, step: int, device: torch.device, checkpoint: Path
) -> Iterator[None]:
    """Turn running out of memory in the block into an error that says what was too large.

    Args:
        parts: the batches of the step.
        step: its number, from 1.
        device: where it is computed.
        checkpoint: where the last one is, if there is one.

    Raises:
        RunError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory on {device} at step {step}, with {_describe(parts)}; lower "
            "training.batch_size, raise training.accumulation_steps, or lower preprocess.min_size "
            f"and max_size. {kept_checkpoint(checkpoint)}"
        ) from None


def _describe(parts: Sequence[Batch]) -> str:
    largest = max(parts, key=lambda batch: batch.images.numel())
    count, channels, height, width = largest.images.shape
    fullest = max(int(batch.is_object.sum(dim=1).max()) for batch in parts)
    total = sum(int(batch.is_object.sum()) for batch in parts)
    boxes = f"{total} boxes (at most {fullest} in an image)"
    return (
        f"a batch of {count} × {channels} × {height} × {width} and {boxes}"
        if len(parts) == 1
        else f"{len(parts)} accumulated batches of up to {count} × {channels} × {height} × {width} "
        f"and {boxes}"
    )
