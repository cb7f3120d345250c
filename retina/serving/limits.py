"""What the service takes on at most, and how it says no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of the service; whoever is over one of them is refused, nobody else suffers.

    Attributes:
        max_bytes: of the body of one request.
        max_pixels: of one picture, looked up in its head before anything is decoded.
        max_held_bytes: of the bodies of all requests that are held at a time.
        queue: requests that are held at a time: those whose bodies come in, those that wait, and
            those that run.
        timeout: seconds from the head of a request to its answer.
        body_timeout: seconds in which its body must have come.
        max_detections: of one answer.
        stop_seconds: what the requests that are held get when the service is told to stop.
    """

    max_bytes: int = 50_000_000
    max_pixels: int = 64_000_000
    max_held_bytes: int = 400_000_000
    queue: int = 64
    timeout: float = 30.0
    body_timeout: float = 15.0
    max_detections: int = 300
    stop_seconds: float = 6.0


class Refusal(Exception):
    """A request that is not answered as it wished.

    Attributes:
        status: of HTTP.
        detail: one sentence for who asked.
        retry_after: seconds after which it may be tried again; None where that would not help.
    """

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after


class Held:
    """The bytes that one request holds; they count among those of all.

    Args:
        admission: counts those of all.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission, self._bytes = admission, 0

    def add(self, num_bytes: int) -> None:
        """Hold so many more.

        Raises:
            Refusal: all requests together hold too many.
        """
        self._admission.hold(num_bytes)
        self._bytes += num_bytes

    def release(self) -> None:
        """Hold none any more."""
        self._admission.held_bytes -= self._bytes
        self._bytes = 0


class Admission:
    """Lets requests in, a bounded number for a bounded time; it lives in one event loop.

    Attributes:
        limits: the bounds.
        held_bytes: of all requests that are inside.
        is_stopping: whether nobody is let in any more.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held_bytes = 0
        self.is_stopping = False
        self._clocks: set[asyncio.Timeout] = set()

    @property
    def num_inside(self) -> int:
        """Requests that are inside."""
        return len(self._clocks)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Held]:
        """A place for one request, for the ``with`` block.

        Raises:
            Refusal: there is no place, the service stops, or the time is over.
        """
        if self.is_stopping:
            raise _stopping()
        if self.num_inside >= self.limits.queue:
            raise _busy(f"{self.num_inside} requests are waiting already")
        held = Held(self)
        clock = asyncio.timeout(self.limits.timeout)
        try:
            async with clock:
                self._clocks.add(clock)
                yield held
        except TimeoutError:
            if self.is_stopping:
                raise _stopping() from None
            raise Refusal(
                504, f"no answer within {self.limits.timeout:g} s; try again, or a smaller picture"
            ) from None
        finally:
            self._clocks.discard(clock)
            held.release()

    def hold(self, num_bytes: int) -> None:
        """Count bytes that a request holds.

        Raises:
            Refusal: they are too many.
        """
        if self.held_bytes + num_bytes > self.limits.max_held_bytes:
            raise _busy("too many large pictures come in at a time")
        self.held_bytes += num_bytes

    def stop(self) -> None:
        """Let nobody in any more; who is inside gets `Limits.stop_seconds` at most."""
        self.is_stopping = True
        last = asyncio.get_running_loop().time() + self.limits.stop_seconds
        for clock in self._clocks:
            when = clock.when()
            if not clock.expired() and when is not None and when > last:
                clock.reschedule(last)


def _busy(why: str) -> Refusal:
    return Refusal(429, f"the service is busy, {why}; try again in a second", retry_after=1)


def _stopping() -> Refusal:
    return Refusal(503, "the service is stopping; try again in a few seconds", retry_after=5)
