"""The server around the application: its socket, slow clients, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from retina.errors import UserError
from retina.serving.batching import THREAD
from retina.serving.service import PICTURE_THREADS, Service

HEAD_SECONDS = 10.0
"""In which the head of a request must have come, from the start of the connection or the answer
before it on."""

_GRACE_SECONDS = 8
"""From the signal until connections are cut; `Limits.stop_seconds` is less, so that all who wait
have had their answer."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or an address of this machine.
        port: 0 takes one that is free.

    Raises:
        UserError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise UserError(f"--host {host}: is no address of this machine ({error})") from None
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or "
            "--host (--port 0 takes a free one)"
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """``http://127.0.0.1:8000``."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A server for one service.

    Args:
        app: the application of the service.
        service: is told when the server stops.
        on_start: called when it listens.
    """

    def __init__(self, app: ASGIApp, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_ImpatientProtocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._service, self._on_start = service, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is held, and end."""
        self._service.admission.stop()
        await super().shutdown(sockets)


def serve(
    app: ASGIApp, service: Service, listening: socket.socket, on_start: Callable[[], None]
) -> int:
    """Answer requests until a signal comes.

    Where the detector still computes when the time is over, the process ends here.

    Args:
        app: the application of the service.
        service: is told when the server stops.
        listening: what `bind` gives.
        on_start: called when it listens.

    Returns:
        The number of the signal.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    # The server puts its own handlers in the place of these and raises the signal again at its end.
    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        Server(app, service, on_start).run([listening])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    (number,) = received[-1:] or (int(signal.SIGTERM),)
    if _is_computing():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)  # the interpreter would wait for the thread
    return number


def _is_computing() -> bool:
    threads = [
        one for one in threading.enumerate() if one.name.startswith((THREAD, PICTURE_THREADS))
    ]
    for thread in threads:
        thread.join(0.2)
    return any(thread.is_alive() for thread in threads)


class _ImpatientProtocol(H11Protocol):
    """Ends connections on which no request comes.

    uvicorn bounds only the time without a single byte, and that not before the first request.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        self._await_request()  # first: a request that is here already begins in the next call
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._end_unless_asked, self.cycle)

    def _end_unless_asked(self, last: object) -> None:
        if self.cycle is last:
            self.transport.close()
