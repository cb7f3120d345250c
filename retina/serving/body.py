"""The bytes of a picture out of a request, bounded in size and time while they come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retina.serving.limits import Held, Limits, Refusal

PICTURE_TYPES = (
    *("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"),
    "application/octet-stream",
)
"""The content types of a body that is a picture; what it is, is looked up in its bytes."""

FORM_TYPE = "multipart/form-data"
PART = "file"
"""The name of the part of a form that holds the picture."""


async def read_picture(request: Request, limits: Limits, held: Held) -> bytes:
    """The bytes of the picture of a request.

    They stay in memory: nothing is written to a disk.

    Args:
        request: its body is a picture, or a form with one part, ``file``.
        limits: on size and time.
        held: counts the bytes.

    Raises:
        Refusal: the body is too large, too slow, of another type, broken off, or empty.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (*PICTURE_TYPES, FORM_TYPE):
        raise Refusal(
            415,
            f"the Content-Type is {_quoted(kind)}; send a picture as {', '.join(PICTURE_TYPES)}, "
            f"or {FORM_TYPE} with one part '{PART}'",
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "the body is compressed; send the picture as it is")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limits.max_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout):
            stream = _bounded(request, limits, held)
            data = await (_of_form(request, stream) if kind == FORM_TYPE else _joined(stream))
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {limits.body_timeout:g} s; send it faster"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "the body breaks off") from None
    if not data:
        raise Refusal(400, "the picture is empty (0 bytes)")
    return data


async def _bounded(request: Request, limits: Limits, held: Held) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.max_bytes:
            raise _too_large(limits)
        held.add(len(chunk))
        yield chunk


async def _joined(stream: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in stream])


class _InMemory(MultiPartParser):
    """Never writes a part to a file; its size is bounded by that of the body."""

    spool_max_size = 2**62


async def _of_form(request: Request, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        parser = _InMemory(request.headers, stream, max_files=1, max_fields=0)
        form = await parser.parse()
    except MultiPartException as error:
        said = error.message.rstrip(".")
        raise Refusal(400, f"the form cannot be read ({said}); {_FORM}") from None
    file = form.get(PART)
    if not isinstance(file, UploadFile):
        raise Refusal(400, f"the form has no part '{PART}', or breaks off in it; {_FORM}")
    try:
        return await file.read()
    finally:
        await file.close()


_FORM = f"send one part, '{PART}', with a file name"


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, f"the body has more than {limits.max_bytes} bytes; send a smaller picture, or tiles"
    )


def _quoted(kind: str) -> str:
    return f"'{kind[:60]}'" if kind else "missing"
