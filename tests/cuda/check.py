"""What a check on the GPU is; `scripts/gpu_check.py` and `test_checks.py` run them.

Neither this file nor the checks import pytest: on a bare machine it may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Setting:
    """Where a check runs.

    Attributes:
        device: what is checked; ``cpu`` to try out the check itself.
        folder: empty, for its files.
        data: a copy of the BCCD data set, or None for generated data.
    """

    device: torch.device
    folder: Path
    data: Path | None = None

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: short, and unlike any other.
        run: returns what is worth knowing; raises where something is wrong.
        needs_gpu: it makes no sense on a CPU, or takes minutes there.
        seconds: after which it is taken to hang.
    """

    name: str
    run: Callable[[Setting], str]
    needs_gpu: bool = False
    seconds: float = 60.0
