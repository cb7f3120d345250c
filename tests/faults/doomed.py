"""A training in a process of its own that is killed like ``kill -9`` kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOADED_ONCE = ["retina.experiment", "retina.training.trainer", "tests.faults.doomed"]
PATIENCE = 300.0


def train(
    arguments: list[str], output: Path, *, at_write: int | None = None, after: float | None = None
) -> int:
    """Run ``retina train``; the exit code, or minus the signal that ended it.

    Args:
        arguments: of the command.
        output: a file that gets what the command prints.
        at_write: dies in this many-th step of bringing files to disk (a half-written file, before
            or after a flush, a link or a rename).
        after: is killed when so many seconds have passed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED_ONCE)  # spares every process its four seconds of import
    process = context.Process(target=_train, args=(arguments, str(output), at_write))
    process.start()
    if after is not None:
        process.join(after)
        if process.is_alive():
            process.kill()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the training hangs: {output.read_text()}")
    return process.exitcode


def _train(arguments: list[str], output: str, at_write: int | None) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if at_write is not None:
        _die_in_write(at_write)
    from retina.__main__ import main

    sys.argv = ["retina", "train", *arguments]
    main()


def _die_in_write(number: int) -> None:
    """Let the process die in its n-th write: odd ones after the operation, even ones before."""
    writes = 0

    def doomed(operation: Callable[..., Any], *, in_the_middle: bool = False) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == number:
                if in_the_middle:
                    path, content = arguments
                    operation(path, bytes(content)[: len(content) // 2])
                elif number % 2:
                    operation(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **options)

        return wrapped

    Path.write_bytes = doomed(Path.write_bytes, in_the_middle=True)  # type: ignore[method-assign]
    Path.replace = doomed(Path.replace)  # type: ignore[method-assign]
    os.fsync = doomed(os.fsync)
    os.link = doomed(os.link)
