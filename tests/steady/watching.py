"""What a process holds at a moment, and how it grows."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Holdings:
    """What a process holds after a garbage collection.

    Attributes:
        step: the number of the next step or batch.
        objects: that Python's collector knows, by type.
        tensors: alive.
        tensor_bytes: in their storages, each counted once.
        rss: resident bytes of the process.
        workers: bytes that each loader worker has for itself.
        device: bytes allocated on the GPU; 0 without one.
    """

    step: int
    objects: dict[str, int]
    tensors: int
    tensor_bytes: int
    rss: int
    workers: list[int]
    device: int

    @property
    def num_objects(self) -> int:
        return sum(self.objects.values())

    def more_than(self, before: Holdings) -> dict[str, int]:
        """The types of which there are more now, by how many."""
        return dict(Counter(self.objects) - Counter(before.objects))


def look(step: int, workers: Sequence[int] = ()) -> Holdings:
    gc.collect()
    objects = gc.get_objects()
    # By type: asking some of torch's own objects for theirs makes them warn.
    kinds = Counter(map(type, objects))
    tensor_kinds = {kind for kind in kinds if issubclass(kind, torch.Tensor)}
    tensors = [thing for thing in objects if type(thing) in tensor_kinds]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
    }
    names: Counter[str] = Counter()
    for kind, count in kinds.items():
        names[f"{kind.__module__}.{kind.__qualname__}"] += count
    return Holdings(
        step=step,
        objects=dict(names),
        tensors=len(tensors),
        tensor_bytes=sum(storages.values()),
        rss=resident(os.getpid()),
        workers=[own_bytes(worker) for worker in workers],
        device=torch.cuda.memory_allocated() if torch.cuda.is_available() else 0,
    )


def resident(process: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def own_bytes(process: int) -> int:
    """Bytes that no other process shares and that were written.

    A forked worker's resident pages are its parent's as well until one of the two writes to them,
    a reference count say. The copies then made are no growth of ``resident``, but they are here.
    """
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")


def slope(moments: Sequence[float], values: Sequence[float]) -> float:
    """Least squares: by how much a value grows from one moment to the next."""
    return float(np.polyfit(np.asarray(moments, float), np.asarray(values, float), 1)[0])


def run_program(name: str, *arguments: object, timeout: float = 600.0) -> str:
    """Run a program of this folder in a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "steady" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def note(path: Path, holdings: Holdings) -> None:
    """Add a line to a file, so that what was seen takes no memory."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(holdings)) + "\n")


def read(path: Path) -> list[Holdings]:
    return [Holdings(**json.loads(line)) for line in path.read_text().splitlines()]
