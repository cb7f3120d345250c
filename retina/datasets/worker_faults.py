"""What went wrong in the processes that load images, in words that name the fix."""

from __future__ import annotations

import atexit
import errno
import math
import multiprocessing.connection
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data._utils import signal_handling

from retina.errors import RunError

_SHARED_MEMORY = ("bus error", "shared memory", "shm", "/torch_", "no space left on device")
_OPEN_FILES = ("too many open files", "ancdata")
_NO_PROCESS = ("resource temporarily unavailable", "cannot allocate memory")
_STORAGE = tuple(
    os.strerror(getattr(errno, name)).lower()
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "ENODEV", "EREMOTEIO")
    if hasattr(errno, name)
)


def fault_of_workers(error: Exception) -> RunError | None:
    """The fault that an error in loading images stands for; None where it is another error.

    Args:
        error: a `RuntimeError` or `OSError` that the loader or an image file raised, or that
            reached the main process as a signal while it did something else.
    """
    text = str(error)
    is_of_loader = text.startswith("DataLoader") or isinstance(error, OSError)
    if not is_of_loader and "DataLoader worker" not in text:
        return None
    words, reason = text.lower(), _last_line(text)
    if any(word in words for word in _OPEN_FILES):
        return RunError(
            f"too many files are open ({reason}): raise the limit of the shell (ulimit -n 65536), "
            "or lower training.num_workers"
        )
    if any(word in words for word in _SHARED_MEMORY):
        return RunError(
            f"the shared memory (/dev/shm) is full ({reason}): batches go through it on their way "
            "to the network. Give it more room (docker run --shm-size=8g), or lower "
            "training.num_workers, loader.prefetch_factor or training.batch_size; "
            "training.num_workers=0 needs none"
        )
    if text.startswith("DataLoader"):
        return _death(reason)
    if any(word in words for word in _NO_PROCESS):
        return RunError(
            f"the processes that load images cannot be started, or have no memory ({reason}): "
            "lower training.num_workers, or free memory and processes"
        )
    if any(word in words for word in _STORAGE):
        return RunError(
            f"the storage failed ({reason}): is it within reach, and the disk sound? The file "
            "itself may be whole, so it is not passed over"
        )
    return None


def death_of_worker(iterator: Iterator[Any], patience: float = 2.0) -> RunError | None:
    """The fault of a loader whose worker died and broke off what it was handing over.

    The main process then reads an end of file, or finds its socket closed or gone, and may do so
    before the system calls the worker dead.

    Args:
        iterator: of a loader.
        patience: seconds within which a worker that is dying is dead.

    Returns:
        None where all of its workers live, or it has none.
    """
    processes = getattr(iterator, "_workers", ())
    if not processes:
        return None
    ending = multiprocessing.connection.wait([one.sentinel for one in processes], patience)
    for process in processes:
        if process.sentinel in ending:  # its files are closed, which comes before its death
            process.join(patience)
    dead = [process.pid for process in processes if not process.is_alive()]
    if not dead:
        return None
    pids = ", ".join(map(str, dead))
    return _death(f"DataLoader worker (pid(s) {pids}) exited unexpectedly")


def _death(reason: str) -> RunError:
    return RunError(
        f"a process that loads images died ({reason}). Where the kernel killed it, the machine "
        "is out of memory: lower training.num_workers or loader.prefetch_factor; "
        "training.num_workers=0 loads in the main process"
    )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1].strip() if text.strip() else "no reason given"


_running: weakref.WeakSet[Iterator[Any]] = weakref.WeakSet()


def end_with_this_process(iterator: Iterator[Any]) -> None:
    """Make sure that the worker processes of a loader's iterator do not outlive this process.

    Python asks its children once, by SIGTERM, and waits; but a worker leaves the first SIGTERM to
    the main process. An iterator that an error's traceback still refers to would wait for ever.
    """
    if not _running:
        atexit.unregister(_end_all)
        atexit.register(_end_all)  # the last one registered is the first one run
    _running.add(iterator)


def _end_all() -> None:
    for iterator in list(_running):
        kill_workers(iterator)


class HangGuard:
    """Kills the worker processes of a loader's iterator when a batch takes too long.

    PyTorch's own time-out does not see a worker that hangs after it has announced a batch: the main
    process then waits for it in a call without a limit, which ends when the worker does.

    Args:
        iterator: of a loader with workers.
        seconds: that a batch may take; 0 waits for ever.

    Attributes:
        has_acted: whether it has killed them.
    """

    def __init__(self, iterator: Iterator[Any], seconds: float) -> None:
        self.has_acted = False
        self._iterator = iterator
        self._seconds = seconds
        self._deadline = math.inf
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang guard", daemon=True)

    def __enter__(self) -> HangGuard:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside counts."""
        self._deadline = time.monotonic() + self._seconds
        try:
            yield
        finally:
            self._deadline = math.inf

    def _watch(self) -> None:
        while not self._is_over.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                self.has_acted = True
                for process in getattr(self._iterator, "_workers", ()):
                    process.kill()
                return

    def fault(self) -> RunError:
        """What to report after it has acted."""
        return RunError(
            f"a process that loads images hangs: no batch came within {self._seconds:g} s "
            "(loader.timeout). Is the storage of the images within reach? Where it is only slow, "
            "raise loader.timeout; training.num_workers=0 shows where it stops"
        )


def kill_workers(iterator: Iterator[Any]) -> None:
    """End the worker processes of a loader's iterator at once, also those that hang.

    PyTorch asks them to end and waits for each in turn; one that hangs (in a read from storage that
    is gone, say) never answers, not even to SIGTERM, and Python would wait for it at its exit.
    """
    processes = getattr(iterator, "_workers", ())
    if not any(process.is_alive() for process in processes):
        return
    if getattr(iterator, "_worker_pids_set", False):
        # Or PyTorch would report their deaths as one more fault.
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False  # type: ignore[attr-defined]
    for process in processes:
        process.kill()
