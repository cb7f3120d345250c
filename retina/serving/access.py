"""Who may ask: the key, and the defence of a service without one against other people's pages."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from retina.serving.limits import Refusal

OPEN_PATHS = frozenset({"/", "/health/live", "/health/ready", "/openapi.json"})
"""What is answered without the key: it says nothing of the detector."""


class Access:
    """Lets a request pass or not.

    Without a key only this machine is served. A web page from elsewhere could still have the
    browser of whoever works here send requests: it is told by its ``Origin``, or, where its name
    was made to point here, by the ``Host``.

    Args:
        api_key: what is asked for; None for a service that only this machine reaches.
    """

    def __init__(self, api_key: str | None) -> None:
        self._key = None if api_key is None else api_key.encode()

    def check(self, headers: Headers, path: str) -> None:
        """Let it pass.

        Raises:
            Refusal: it may not.
        """
        if self._key is None:
            _refuse_other_pages(headers)
        elif path not in OPEN_PATHS and not hmac.compare_digest(_given_key(headers), self._key):
            raise Refusal(
                401, "send the key of this service: Authorization: Bearer KEY, or X-API-Key: KEY"
            )


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _given_key(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return given.encode()


def _refuse_other_pages(headers: Headers) -> None:
    host = headers.get("host", "")
    if not is_loopback(_hostname(host)):
        raise Refusal(
            403,
            "without a key this service answers to localhost only; start it with --api-key to "
            "reach it under another name",
        )
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        raise Refusal(403, "a page from elsewhere may not use this service without a key")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
