"""What this machine's processor is quick at, measured once and remembered."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from retina.errors import RunError, UserError
from retina.storage import write_text

WORTH = 1.2
"""How many times as fast bf16 must be. Hardware that multiplies it gives 1.7 to 8; one that only
imitates it less than 1."""
_CLEAR = (0.9, 1.6)
"""A speed-up between the two is not believed at once: something else was running."""
_ROUNDS = 5


@functools.cache
def multiplies_bf16() -> bool:
    """Whether convolutions are faster in bf16 than in float32 by more than conversions cost.

    It is measured the first time on a machine, in some 0.1 s. The answer is kept in the user's
    cache (``$XDG_CACHE_HOME/retina``, else ``~/.cache/retina``), for this processor and torch.
    """
    folder = _cache_folder()
    path = folder / f"bf16_{_machine()}.json" if folder else None
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(path.read_text(encoding="utf-8"))["speed_up"]) >= WORTH
    speed_up = measure_bf16()
    low, high = _CLEAR
    if path is not None and not low < speed_up < high:
        with suppress(UserError, RunError):  # it is measured again then
            write_text(path, json.dumps({"speed_up": round(speed_up, 3)}) + "\n")
    return speed_up >= WORTH


def measure_bf16() -> float:
    """How many times as long a convolution of a middle size takes in float32 as in bf16.

    One thread computes: several wait for the last of them, which another process may hold up.
    """
    images, weights = torch.ones(2, 64, 56, 56), torch.ones(64, 64, 3, 3)
    pairs = [
        tuple(one.to(dtype, memory_format=torch.channels_last) for one in (images, weights))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds: list[list[float]] = []
        for _ in range(10):
            seconds += [[_time(*pair) for pair in pairs] for _ in range(_ROUNDS)]
            in_float32, in_bf16 = map(min, zip(*seconds, strict=True))
            speed_up = in_float32 / in_bf16
            if not _CLEAR[0] < speed_up < _CLEAR[1]:
                break
    finally:
        torch.set_num_threads(threads)
    return float(speed_up)


@torch.no_grad()
def _time(images: Tensor, weights: Tensor) -> float:
    began = time.perf_counter()
    conv2d(images, weights, padding=1)
    return time.perf_counter() - began


def _cache_folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path("~/.cache").expanduser()) / "retina"
    except RuntimeError:  # there is no home
        return None


def _machine() -> str:
    """What a measurement holds for; a home folder may be that of several machines."""
    told = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told += "".join(sorted({one for one in lines if one.startswith(("model name", "flags"))}))
    identity = (told, platform.machine(), torch.__version__)
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
