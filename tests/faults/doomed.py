"""A training in a process of its own that is killed like ``kill -9`` kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from tests.processes import Launched, small_retina  # type: ignore[import-not-found]


def train(
    arguments: list[str], *, at_write: int | None = None, after: float | None = None
) -> tuple[int, str]:
    """Run ``retina train``: the exit code, or minus the signal that ended it; what it printed.

    Args:
        arguments: of the command.
        at_write: dies in this many-th step of bringing files to disk (a half-written file, before
            or after a flush, a link or a rename).
        after: is killed when so many seconds have passed.
    """
    process = Launched(_train, arguments, at_write)
    if after is not None:
        with suppress(TimeoutExpired):
            process.wait(after)
    done = process.complete()
    return done.returncode, done.stdout + done.stderr


def _train(arguments: list[str], at_write: int | None) -> None:
    if at_write is not None:
        _die_in_write(at_write)
    small_retina("train", *arguments)


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
