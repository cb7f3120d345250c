"""Images from the web, which are fetched only where the user has allowed it."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

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
        name = unquote(urlsplit(self.url).path).replace("\\", "/").replace("\0", "")
        return PurePosixPath(name).stem or "image"

    def shots(self) -> Iterator[Shot]:
        """The one image."""
        yield Shot(lambda: decode_bytes(fetch(self.url), self.url))


def fetch(url: str) -> bytes:
    """What a server answers.

    Raises:
        UnreadableImageError: it does not answer in time, says that it cannot, or too much.
    """
    start = time.monotonic()
    try:
        with _opener().open(url, timeout=SILENCE_SECONDS) as answer:
            parts, size = [], 0
            while part := answer.read(1 << 16):
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise _cannot(url, f"it is larger than {MOST_BYTES // 10**6} MB")
                if time.monotonic() - start > MOST_SECONDS:
                    raise _cannot(url, f"it takes longer than {MOST_SECONDS:.0f} seconds")
    except (OSError, HTTPException, ValueError) as error:  # ValueError: no URL
        if isinstance(error, UnreadableImageError):
            raise
        raise _cannot(url, first_line(error)) from None
    return b"".join(parts)


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
