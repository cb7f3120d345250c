"""How the service says no, and the headers that every answer has."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retina.serving.access import Access
from retina.serving.limits import Refusal
from retina.serving.metrics import Metrics

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer that does not say otherwise."""

LINGER_SECONDS = 5.0
"""A client that still sends its body is listened to for so long, or it would not read the answer:
the end of a connection with unread bytes discards what is on its way back."""


class Refused(Response):
    """The answer to a request that is refused; ends the connection, as its body may be unread."""

    media_type = "application/json"

    def __init__(self, refusal: Refusal) -> None:
        headers = {"Connection": "close"}
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(refusal.retry_after)
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = json.dumps({"detail": refusal.detail})
        super().__init__(body, status_code=refusal.status, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then throw away what still comes in."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _discard(scope, receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(scope: Scope, receive: Receive) -> None:
    headers = Headers(scope=scope)
    if headers.get("expect", "").lower() == "100-continue":
        return  # it asked before it sent anything
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    while (message := await receive())["type"] == "http.request":
        if not message.get("more_body", False):
            return


class Guard:
    """What is around every route: who may ask, the headers of the answer, and the counters.

    Args:
        app: the routes.
        access: who may ask.
        metrics: count what is answered.
        paths: the service's own; others are counted together.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, metrics: Metrics, paths: frozenset[str]
    ) -> None:
        self._app, self._access, self._metrics, self._paths = app, access, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._allowed(scope)(scope, receive, send_on)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.count_request(path, status, time.monotonic() - started)

    def _allowed(self, scope: Scope) -> ASGIApp:
        try:
            self._access.check(Headers(scope=scope), scope["path"])
        except Refusal as refusal:
            return Refused(refusal)
        return self._app
