"""A CPU that runs out of memory at so many images at a time, each rank at its own number.

As a program, ``retina`` on such CPUs: ``small_device.py LIMIT,LIMIT… train …``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from retina.distributed import local_rank
from retina.experiment import batch_size
from retina.structures import Batch
from retina.training.forward import ForwardPass


def install(limits: Sequence[int], replace: Callable[[object, str, object], None]) -> list[int]:
    """Make the CPU small; the list returned is filled with what was tried."""
    losses_of, tried = ForwardPass.losses, []

    def losses(forward: ForwardPass, batch: Batch, **options: Any) -> Any:
        tried.append(len(batch))
        result = losses_of(forward, batch, **options)  # as in life, in the midst of a step
        if len(batch) > limits[local_rank()]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return result

    replace(ForwardPass, "losses", losses)
    replace(batch_size, "PROBED_DEVICES", ("cuda", "cpu"))
    return tried


if __name__ == "__main__":
    from retina.__main__ import main
    from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

    install([int(limit) for limit in sys.argv.pop(1).split(",")], setattr)
    with small_backbone_listed():
        main()
