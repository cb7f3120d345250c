"""Stopping a training by signal: finish the step, write a checkpoint, go."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from retina.distributed import gather_objects, is_distributed

STOP_SIGNALS = tuple(
    number
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", None))
    if number is not None
)


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 while it is entered, instead of dying of them.

    SIGUSR1 is what SLURM is usually asked to send before the time is over (``--signal=USR1@120``).

    A second signal of the same kind acts at once, as it did before.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, self._before[number])

    def agreed(self, step: int) -> int | None:
        """The signal that any rank received; every rank must ask after the same steps.

        A single process answers at once; several ask each other at every tenth step.
        """
        if is_distributed() and step % 10:
            return None
        return self.agreed_now()

    def agreed_now(self) -> int | None:
        """The signal that any rank received; every rank must ask at the same place."""
        if not is_distributed():
            return self._received
        received = [number for (number,) in gather_objects((self._received,)) if number]
        return received[0] if received else None
