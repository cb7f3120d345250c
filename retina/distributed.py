"""Facts about the process group, and the few collectives that the project needs.

Every function works in a single process without a process group: the world then has one rank.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retina.errors import RunError, UserError
from retina.wording import first_line

T = TypeVar("T")

_is_alone = False


def is_distributed() -> bool:
    """Whether a process group is up, and this is not inside of `alone`."""
    return dist.is_available() and dist.is_initialized() and not _is_alone


@contextmanager
def alone() -> Iterator[None]:
    """In the block this process is a single one, that waits for no other.

    For what one process may fail at while another does not: no collective may be under way then.
    """
    global _is_alone  # autograd's threads, too
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def world_size() -> int:
    """The number of processes that train together, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """The number of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process on its machine, from torchrun's environment."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sum_over_ranks(value: Tensor) -> Tensor:
    """The elementwise sum of ``value`` over all ranks; ``value`` itself in a single process."""
    if not is_distributed():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def gather_objects(value: T) -> list[T]:
    """``value`` of every rank, in the order of the ranks, on every rank."""
    if not is_distributed():
        return [value]
    gathered: list[T | None] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return [item for item in gathered if item is not None]


def broadcast_object(value: T) -> T:
    """Rank 0's ``value``, on every rank."""
    if not is_distributed():
        return value
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def done_by_main(function: Callable[[], T]) -> T:
    """What a function gives in the main process, for every process.

    Raises:
        UserError: the function has raised it.
        SystemExit: the same in the other processes, which say nothing.
    """
    if not is_distributed():
        return function()
    value: T | None = None
    problem: UserError | None = None
    if is_main_process():
        try:
            value = function()
        except UserError as error:
            problem = error
    value, has_failed = broadcast_object((value, problem is not None))
    if problem is not None:
        raise problem
    if has_failed:
        raise SystemExit(2)
    return value  # type: ignore[return-value]


def broadcast_buffers(module: nn.Module) -> None:
    """Give every rank the buffers (running statistics) that rank 0 has."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    """Wait until every rank has come here."""
    if is_distributed():
        dist.barrier()


_PATIENT_MINUTES = 24 * 60.0
"""How long processes wait that only share images: one may have more to do than the others."""

_LOST = re.compile(r"Timed out waiting|by peer|Read error|Write error|[Tt]imeout|NCCL error")
"""What gloo and NCCL say when another process does not answer or is gone."""


@contextmanager
def process_group(
    device_type: str,
    *,
    timeout_minutes: float = 30.0,
    key: str = "training.collective_timeout_minutes",
    fix: str = "The last checkpoint is intact; go on with --resume",
) -> Iterator[None]:
    """Join the process group that torchrun announces in the environment, for the ``with`` block.

    Without torchrun (no rank and address in the environment) this does nothing.

    Args:
        device_type: with ``cuda`` tensors on a device go over NCCL; all else goes over gloo.
        timeout_minutes: how long to wait for another process before giving it up.
        key: of a config, that sets it; empty where nothing does.
        fix: what the error says to do.

    Raises:
        RunError: another process hangs or died.
    """
    if is_distributed() or not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield
        return
    if device_type == "cuda":
        torch.cuda.set_device(local_rank())
    # Objects (signals, states) go over the processor, so that no step waits for the device.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
        timeout=timedelta(minutes=timeout_minutes),
    )
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError) or not _LOST.search(str(error)):
            raise
        raise RunError(
            f"process {rank()} of {world_size()} lost another one, which died or did not answer "
            f"within {timeout_minutes:g} minutes{key and f' ({key})'}: see what the others said "
            f"last. {fix} ({first_line(error)})"
        ) from error
    finally:
        dist.destroy_process_group()


def sharing_processes(device_type: str) -> AbstractContextManager[None]:
    """`process_group` for processes that share images and may have unequal work."""
    return process_group(
        device_type,
        timeout_minutes=_PATIENT_MINUTES,
        key="",
        fix="What was found is kept; go on with --resume",
    )
