"""Images from the web, which are fetched only where the user has allowed it."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import PurePosixPath
from string import punctuation
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from retina.datasets.images import decode_bytes
from retina.errors import UnreadableImageError
from retina.prediction.inputs import Input, Shot
from retina.wording import first_line

MOST_BYTES = 50_000_000
"""A larger answer is refused."""

SILENCE_SECONDS = 20.0
"""How long a server may say nothing."""

MOST_SECONDS = 120.0
"""How long an image may take in all."""


@dataclass(frozen=True, slots=True)
class ImageUrl(Input):
    """An image behind ``http`` or ``https``."""

    url: str

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    @property
    def stem(self) -> str:
        """Of the last part of its path."""
        try:
            path = urlsplit(self.url).path
        except ValueError:  # no URL; `fetch` says so at its turn
            return "image"
        name = unquote(path).replace("\\", "/").replace("\0", "")
        return PurePosixPath(name).stem or "image"

    def shots(self) -> Iterator[Shot]:
        """The one image."""
        yield Shot(lambda: decode_bytes(fetch(self.url), self.url))


def fetch(url: str) -> bytes:
    """What a server answers.

    Raises:
        UnreadableImageError: it does not answer in time, says that it cannot, or too much.
    """
    answer: Future[bytes] = Future()

    def work() -> None:
        try:
            answer.set_result(_fetched(url))
        except BaseException as error:
            answer.set_exception(error)

    # In a thread of its own: to look up a name, or a head that comes byte by byte, knows no limit.
    threading.Thread(target=work, name="fetch", daemon=True).start()
    try:
        return answer.result(MOST_SECONDS)
    except TimeoutError:
        raise _too_slow(url) from None


def _fetched(url: str) -> bytes:
    """As `fetch`, but waiting for what no time limit is kept for."""
    start = time.monotonic()
    try:
        with _opener().open(_quoted(url), timeout=SILENCE_SECONDS) as answer:
            parts, size = [], 0
            while part := answer.read1(1 << 16):  # what there is: `read` would wait for all of it
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise _cannot(url, f"it is larger than {MOST_BYTES // 10**6} MB")
                if time.monotonic() - start > MOST_SECONDS:
                    raise _too_slow(url)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: no URL
        if isinstance(error, UnreadableImageError):
            raise
        raise _cannot(url, _reason(error)) from None
    return b"".join(parts)


def _quoted(url: str) -> str:
    """With what no request may hold, letters of other scripts and spaces, as its escapes."""
    return quote(url, safe=punctuation)


def _reason(error: BaseException) -> str:
    """What keeps it from being fetched, without the brackets and numbers of the libraries."""
    while isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return str(error.reason)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror}; check the address and the network"
    if isinstance(error, ValueError):
        return f"{first_line(error)}; correct the address"
    return first_line(error)


def _too_slow(url: str) -> UnreadableImageError:
    return _cannot(url, f"it takes longer than {MOST_SECONDS:g} seconds")


def _cannot(url: str, reason: str) -> UnreadableImageError:
    return UnreadableImageError(f"{url}: cannot be fetched: {reason}")


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Opens ``http`` and ``https``; a redirection to a file or elsewhere leads nowhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "retina")]
    return opener
