"""Running out of memory, told in terms of the config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from retina.devices import explaining_out_of_memory
from retina.structures import Batch
from retina.training.run_folder import kept_checkpoint
from retina.wording import counted


@contextmanager
def naming_the_batch(
    micro_batches: Sequence[Batch], *, step: int, device: torch.device, checkpoint: Path
) -> Iterator[None]:
    """Turn running out of memory in the block into an error that says what was too large.

    Args:
        micro_batches: the batches of the step.
        step: its number, from 1.
        device: where it is computed.
        checkpoint: where the last one is, if there is one.

    Raises:
        RunError: memory ran out.
    """
    with explaining_out_of_memory(
        lambda: (
            f"out of memory on {device} at step {step}, with {_describe(micro_batches)}; lower "
            "training.batch_size, raise training.accumulation_steps, or lower preprocess.min_size "
            f"and max_size. {kept_checkpoint(checkpoint)}"
        )
    ):
        yield


def _describe(micro_batches: Sequence[Batch]) -> str:
    largest = max(micro_batches, key=lambda batch: batch.images.numel())
    count, channels, height, width = largest.images.shape
    fullest = max(int(batch.targets.is_object.sum(dim=1).max()) for batch in micro_batches)
    total = sum(int(batch.targets.is_object.sum()) for batch in micro_batches)
    boxes = f"{counted(total, 'box')} (at most {fullest} in an image)"
    return (
        f"a batch of {count} × {channels} × {height} × {width} and {boxes}"
        if len(micro_batches) == 1
        else f"{len(micro_batches)} accumulated batches of up to {count} × {channels} × {height} × "
        f"{width} and {boxes}"
    )
