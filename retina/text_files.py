"""Reading text files as people's tools write them: any Unicode encoding, compressed or not."""

from __future__ import annotations

import codecs
import json
import re
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retina.errors import UserError

MAX_BYTES = 2**32
"""Larger files are refused: a small compressed one can claim to hold any number of bytes."""

_GZIP = b"\x1f\x8b"
_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a zip archive: unpack it, and name the file inside"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself with git lfs pull"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x80\x02", "a pickle file"),
)
_XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")


def read_text(path: Path, what: str, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, or in what its byte order mark or XML declaration says.

    A file compressed with gzip is unpacked, whatever its name.

    Args:
        path: the file.
        what: it should be, for messages: ``annotation file``.
        max_bytes: a larger one is refused, packed or unpacked.

    Raises:
        UserError: it is missing, no file, no text, or too large.
    """
    content = _read_bytes(path, what, max_bytes)
    if content.startswith(_GZIP):
        content = _unpacked(content, path, max_bytes)
    kind = next((kind for magic, kind in _NO_TEXT if content.startswith(magic)), None)
    if kind is not None:
        raise UserError(f"{path}: is no {what}, but {kind}")
    encoding = _encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no text in {encoding.upper().removesuffix('-SIG')} (byte {error.start}); "
            "save it in UTF-8"
        ) from None
    except (LookupError, UnicodeError):  # the codec 'undefined' decodes nothing
        raise UserError(
            f"{path}: says that it is in the encoding '{encoding}', which is unknown; save it in "
            "UTF-8"
        ) from None


def read_beginning(path: Path, max_bytes: int = 2**16) -> str:
    """The first letters of a file, to look at what it is; empty where it cannot be read at all.

    Args:
        path: the file, which `read_text` reads.
        max_bytes: how much of it is looked at.
    """
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes)
        if content.startswith(_GZIP):
            content = zlib.decompressobj(wbits=31).decompress(content, max_bytes)
        return content.decode(_encoding_of(content), errors="ignore")
    except (OSError, LookupError, UnicodeError, zlib.error):
        return ""


def _read_bytes(path: Path, what: str, max_bytes: int) -> bytes:
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise UserError(f"{path}: is a folder, not a {what}")
        if not stat.S_ISREG(about.st_mode):  # a pipe could be waited for for ever
            raise UserError(f"{path}: is no file, but a pipe or a device")
        if about.st_size > max_bytes:
            raise UserError(f"{path}: is larger than {max_bytes} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    except UserError:
        raise
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{path}: cannot be opened: {error}") from None


def _unpacked(content: bytes, path: Path, max_bytes: int) -> bytes:
    unpacked, size, rest = [], 0, content
    try:
        while rest.startswith(_GZIP):  # a file may hold several parts, one after the other
            stream = zlib.decompressobj(wbits=31)
            unpacked.append(stream.decompress(rest, max_bytes + 1 - size))
            size += len(unpacked[-1])
            if size > max_bytes:
                raise UserError(f"{path}: holds more than {max_bytes} bytes, unpacked")
            if not stream.eof:
                raise zlib.error
            rest = stream.unused_data
    except zlib.error:
        raise UserError(
            f"{path}: is damaged or incomplete (compressed with gzip); copy or download it again"
        ) from None
    return b"".join(unpacked)


def _encoding_of(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    if content[:4].count(0) == 2 and len(content) % 2 == 0:  # Latin letters without a mark
        return "utf-16-le" if content[1] == 0 else "utf-16-be"
    declared = _XML_ENCODING.match(content[:200])
    return declared[1].decode("ascii") if declared else "utf-8"


def read_json(
    path: Path, what: str, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        what: it should be, for messages.
        object_hook: as for `json.loads`.

    Raises:
        UserError: as for `read_text`; or it is no JSON, which is named as what it is.
    """
    text = read_text(path, what)
    if not text.strip():
        raise UserError(f"{path}: the {what} is empty")
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: {_json_fault(text, error)}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None


def _json_fault(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a text that is no JSON, and what to do."""
    place = f"at line {error.lineno}, column {error.colno}"
    before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if before.endswith(",") and after[:1] in ("]", "}"):
        return f"not readable as JSON: a comma before the closing '{after[0]}' {place}: remove it"
    if after[:1] == "," and after[1:].lstrip()[:1] in ("]", "}"):  # Python 3.13 stands before it
        closing = after[1:].lstrip()[0]
        return f"not readable as JSON: a comma before the closing '{closing}' {place}: remove it"
    if before and error.msg == "Extra data" and after[:1] in ("{", "["):
        return (
            f"holds several JSON values, one after the other (JSON lines; the second {place}): "
            "write them as one"
        )
    if after[:1] == "'":
        return f"not readable as JSON: a text in single quotes {place}: write it with json.dump"
    if after[:2] in ("//", "/*") or after[:1] == "#":
        return f"not readable as JSON: a comment {place}: JSON has none, remove it"
    if text.lstrip()[:1] == "<":
        return "is XML or HTML, not JSON"
    fault = error.msg.removesuffix(" starting at")
    return (
        f"not readable as JSON: {fault[0].lower()}{fault[1:]} {place} (character "
        f"{error.pos} of {len(text)}); the file may be incomplete: copy or download it again"
    )
