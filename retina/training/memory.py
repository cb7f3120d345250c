"""Running out of memory, told in terms of the config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from retina.devices import explaining_out_of_memory
from retina.structures import Batch
from retina.training.divergence_report import kept_checkpoint


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
    with explaining_out_of_memory(
        lambda: (
            f"out of memory on {device} at step {step}, with {_describe(parts)}; lower "
            "training.batch_size, raise training.accumulation_steps, or lower preprocess.min_size "
            f"and max_size. {kept_checkpoint(checkpoint)}"
        )
    ):
        yield


def _describe(parts: Sequence[Batch]) -> str:
    largest = max(parts, key=lambda batch: batch.images.numel())
    count, channels, height, width = largest.images.shape
    fullest = max(int(batch.targets.is_object.sum(dim=1).max()) for batch in parts)
    total = sum(int(batch.targets.is_object.sum()) for batch in parts)
    boxes = f"{total} boxes (at most {fullest} in an image)"
    return (
        f"a batch of {count} × {channels} × {height} × {width} and {boxes}"
        if len(parts) == 1
        else f"{len(parts)} accumulated batches of up to {count} × {channels} × {height} × {width} "
        f"and {boxes}"
    )
