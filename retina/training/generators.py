"""The states of the random number generators, taken into a checkpoint and back.

No batch and no update depends on them today: what is random about an image comes from the seed in
its request. They are kept so that whatever a model or a callback draws goes on as it would have.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """The generators of Python, NumPy, torch and CUDA, as values that a safe load accepts."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - what libraries draw from
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Put the generators where they were; CUDA's only where as many devices are there."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
