"""Whether the loader keeps up with the network, and whether the largest batch fits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retina.datasets.loading import Collate
from retina.errors import RunError
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding
from retina.instruments.doctor.trial import batch_sampler_of, load_micro_batches, start_trial
from retina.structures import Batch, SampleRequest
from retina.wording import counted

_LOADED_BATCHES = 8
_LONGEST = 15.0
_TIMED_STEPS = 3
_AHEAD = 1.1
"""The loader should make so many times the images that the network takes."""

_FULL = 0.9
"""The share of the memory above which other processes, or a larger batch, would end the run."""


def check_speed(context: CheckContext) -> CheckResult:
    """Images per second that the loader makes and that the network takes, each by itself."""
    requests = batch_sampler_of(context).epoch(0)
    loaded = loading_speed(context, requests)
    taken = step_speed(context, load_micro_batches(context, requests[0]))
    workers = context.config.training.num_workers
    return CheckResult(
        summary=f"images/s: loader {loaded:.1f} (num_workers {workers}), network {taken:.1f}",
        findings=compare_speeds(loaded, taken, workers=workers, cores=available_cores()),
        numbers={"loader": loaded, "network": taken, "num_workers": workers},
    )


def loading_speed(context: CheckContext, requests: Sequence[Sequence[SampleRequest]]) -> float:
    """Images per second of the configured loader, without the first batch (workers start up)."""
    config = context.config
    loader = config.loader.build(
        context.train,
        [list(batch) for batch in requests[: _LOADED_BATCHES + config.training.num_workers]],
        Collate(config.preprocess.size_divisor, config.preprocess.pad_to),
        num_workers=config.training.num_workers,
    )
    images, started = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 0:
            first, started = len(batch), time.monotonic()
            continue
        images += len(batch)
        if time.monotonic() - started > _LONGEST:
            break
    if not images:  # a single batch: its whole time is all there is
        started = time.monotonic()
        load_micro_batches(context, requests[0])
        images = first
    return images / max(1e-6, time.monotonic() - started)


def step_speed(context: CheckContext, micro_batches: Sequence[Batch]) -> float:
    """Images per second of training steps on one batch, without the first step."""
    trial, lr = start_trial(context), context.config.optimizer.lr / 1000
    trial.advance(micro_batches, lr)
    started = time.monotonic()
    for _ in range(_TIMED_STEPS):
        trial.advance(micro_batches, lr)
    images = _TIMED_STEPS * sum(map(len, micro_batches))
    return images / max(1e-6, time.monotonic() - started)


def available_cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def compare_speeds(loaded: float, taken: float, *, workers: int, cores: int) -> tuple[Finding, ...]:
    """The finding that the network waits for data, if it does."""
    if loaded >= _AHEAD * taken:
        return ()
    wanted = min(cores, max(workers + 1, round(max(1, workers) * 1.3 * taken / max(loaded, 1e-6))))
    can_more = wanted > workers and cores > 1
    return (
        Finding(
            code="loader_slow",
            level="warning" if loaded < 0.8 * taken else "note",
            what=f"the loader makes {loaded:.1f} images/s with {counted(workers, 'worker')}, "
            f"the network could take {taken:.1f}",
            why="The network waits for data; the training takes longer than it needs to.",
            fix=f"Use {counted(wanted, 'worker')} ({cores} cores are here)."
            if can_more
            else "All cores are in use: store smaller images, use fewer augmentations, or keep "
            "decoded images in memory (dataset.train.cache_images).",
            patch={"training": {"num_workers": wanted}} if can_more else None,
            numbers={"loader": loaded, "network": taken, "num_workers": workers, "cores": cores},
        ),
    )


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory that a step takes.

    Attributes:
        used: bytes at the peak; on a CPU the growth of this process, an estimate; 0 where
            the system does not say (Windows), `sys.maxsize` where the step failed.
        available: bytes that there are for it; 0 where nobody says.
        shape: ``(images, height, width)`` of the largest micro-batch.
    """

    used: int
    available: int
    shape: tuple[int, int, int]


def check_memory(context: CheckContext) -> CheckResult:
    """A real step on the largest batch of an epoch."""
    requests = largest_batch(batch_sampler_of(context).epoch(0))
    micro_batches = load_micro_batches(context, requests)
    largest = max(micro_batches, key=lambda batch: batch.images.numel())
    shape = (len(largest), *largest.padded_size)
    try:
        use = _measure(context, micro_batches, shape)
    except (torch.OutOfMemoryError, MemoryError):
        use = MemoryUse(sys.maxsize, 0, shape)
    return CheckResult(
        summary=_described(use, context.config.device),
        findings=judge_memory(use, context.config.training.accumulation_steps, len(requests)),
        numbers={
            "bytes": use.used if use.used < sys.maxsize else None,
            "available": use.available,
            "images": shape[0],
            "height": shape[1],
            "width": shape[2],
        },
    )


def largest_batch(batches: Sequence[Sequence[SampleRequest]]) -> Sequence[SampleRequest]:
    """The batch with the most padded pixels."""

    def pixels(batch: Sequence[SampleRequest]) -> int:
        sizes = [request.max_size or (0, 0) for request in batch]
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        return len(batch) * height * width

    return max(batches, key=pixels)


def _measure(
    context: CheckContext, micro_batches: Sequence[Batch], shape: tuple[int, int, int]
) -> MemoryUse:
    before = _peak_of_process()
    trial = start_trial(context)
    device = trial.runtime.device
    lr = context.config.optimizer.lr / 1000
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        trial.advance(micro_batches, lr)
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        peak = torch.cuda.max_memory_reserved(device)
        return MemoryUse(peak, free + reserved, shape)
    available = _available_memory()
    trial.advance(micro_batches, lr)
    return MemoryUse(max(0, _peak_of_process() - before), available, shape)


def judge_memory(use: MemoryUse, accumulation: int, batch_size: int) -> tuple[Finding, ...]:
    """The finding that the step does not fit, or hardly, if so."""
    is_failed = use.used == sys.maxsize
    if not is_failed and (not use.available or use.used <= _FULL * use.available):
        return ()
    images, height, width = use.shape
    parts = min(batch_size, 2 * accumulation)
    amount = (
        "more memory than there is" if is_failed else (f"{_gib(use.used)} of {_gib(use.available)}")
    )
    return (
        Finding(
            code="memory_short",
            level="error",
            what=f"a step on the largest batch ({images} × 3 × {height} × {width}) takes {amount}",
            why="The training would end with an out-of-memory error when that batch comes.",
            fix=f"Compute the batch in {parts} parts (training.accumulation_steps), or lower "
            "training.batch_size or preprocess.max_size."
            if parts > accumulation
            else "Lower preprocess.min_size and preprocess.max_size.",
            patch={"training": {"accumulation_steps": parts}} if parts > accumulation else None,
            numbers={"bytes": None if is_failed else use.used, "available": use.available},
        ),
    )


def _described(use: MemoryUse, device: str) -> str:
    images, height, width = use.shape
    shape = f"{images} × {height} × {width}"
    if use.used == sys.maxsize:
        return f"{shape} does not fit"
    if not use.used:
        return f"{shape} fits"
    of = f" of {_gib(use.available)}" if use.available else ""
    kind = "about " if not device.startswith("cuda") and not torch.cuda.is_available() else ""
    return f"{kind}{_gib(use.used)}{of} for {shape}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _peak_of_process() -> int:
    """The most memory that this process ever held, in bytes; 0 on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _available_memory() -> int:
    """Bytes that the machine has to spare; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return 0
        raise RunError(f"/proc/meminfo: cannot be read: {error}") from None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024
