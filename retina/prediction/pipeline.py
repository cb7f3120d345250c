"""Work that overlaps: reading ahead, and finishing behind, in threads and in order.

Decoding, the network, drawing and writing release Python's lock, so threads are enough. Whatever
waits for its turn is bounded in number, and so is the memory.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_MOST_THREADS = 8


def num_threads() -> int:
    """How many threads decode, and how many draw: the cores of this process's share."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def map_ahead(
    function: Callable[[T], U], items: Iterable[T], *, threads: int, ahead: int
) -> Generator[U, None, None]:
    """What a function gives for each item, in order, computed before it is asked for.

    Args:
        function: is called in several threads; an error of it is raised at its item's turn.
        items: is advanced in the thread that asks.
        threads: how many.
        ahead: how many items are begun before their turn.
    """
    waiting: deque[Future[U]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where nobody asks any more
        pool.shutdown(cancel_futures=True)


class Behind(Generic[T, U]):
    """Finishes values behind the thread that makes them: in parallel, then in order.

    It is used as a context; where the block ends well, all is finished when it has ended, and where
    it breaks off, what was put before is finished as well.

    Args:
        parallel: called with each value in several threads.
        in_order: called with each result in one thread, in the order of the values.
        threads: how many.
        depth: how many values wait at most; then `put` waits.
    """

    def __init__(
        self,
        parallel: Callable[[T], U],
        in_order: Callable[[U], None],
        *,
        threads: int,
        depth: int,
    ) -> None:
        self._parallel = parallel
        self._in_order = in_order
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="behind")
        self._queue: queue.Queue[Future[U] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._finish, name="behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, value: T) -> None:
        """Take a value in, when there is room.

        Raises:
            BaseException: what finishing an earlier value has raised.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(self._pool.submit(self._parallel, value))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        if error is None and self._error is not None:
            raise self._error

    def _finish(self) -> None:
        while (future := self._queue.get()) is not None:
            if self._error is None:  # else only make room, so that nobody waits for ever
                try:
                    self._in_order(future.result())
                except BaseException as error:
                    self._error = error


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items, of which a thread of its own fetches up to ``depth`` before they are asked for."""
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    is_over = threading.Event()

    def fetch() -> None:
        try:
            for item in items:
                if not _put(ready, (True, item), is_over):
                    return
            _put(ready, (False, None), is_over)
        except BaseException as error:
            _put(ready, (False, error), is_over)

    thread = threading.Thread(target=fetch, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if not is_item:
                if isinstance(value, BaseException):
                    raise value
                return
            yield value  # type: ignore[misc]
    finally:
        is_over.set()
        thread.join()


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one of the rest."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _put(to: queue.Queue[T], value: T, is_over: threading.Event) -> bool:
    """Put a value when there is room; False once nobody asks any more."""
    while not is_over.is_set():
        with suppress(queue.Full):
            to.put(value, timeout=0.1)
            return True
    return False
