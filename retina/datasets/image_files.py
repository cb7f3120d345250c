"""Image files as they lie on disk: opened, identified and bounded before anything is decoded."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

import cv2
from PIL import Image as PilImage
from PIL import UnidentifiedImageError

from retina.errors import TooManyPixelsError, UnreadableImageError, UserError

MAX_PIXELS = 178_956_970
"""Larger images are refused, since a small file can claim to hold any number of pixels: Pillow's
own bound."""

MAX_FILE_BYTES = 2**31 - 1
"""Larger files are refused: no decoder takes them, and reading them would fill the memory."""

SMALLER = (
    "cut it into smaller images, or, to predict, make it a TIFF and give --tile, which reads it by "
    "parts"
)
"""What to do about an image that is too large."""

FORMATS = (
    *("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "DIB"),
    *("GIF", "PPM", "JPEG2000", "AVIF"),
)
"""What is read, by Pillow's names. Pillow knows more, but some of them are programs or start one:
an EPS file is handed to Ghostscript."""

_FAULTS_OF_FILES = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL),
    }
)
"""Where the file itself is at fault. ENXIO is what opening a socket says; EINVAL is a name that no
file can have, or an offset in a damaged file that lies before its start. Anything else (no more
open files, no memory, a storage that does not answer) is a fault of the machine: the image may be
whole, and must not be passed over."""


_OF_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""As an entry of `warnings.filters`."""


@contextmanager
def one_clear_error(path: Path | str) -> Iterator[None]:
    """Whatever a decoder raises on a broken file (it may be anything) becomes one message.

    Faults of the machine pass: a `MemoryError`, and an `OSError` that is not the file's. What
    Pillow warns of (a large image, damaged EXIF data, odd tags) is read all the same.
    """
    try:
        with _without_warnings_of_pillow():
            yield
    except (MemoryError, UserError):
        raise
    except OSError as error:  # decoders raise some without a number
        if error.errno is not None and error.errno not in _FAULTS_OF_FILES:
            raise _about(path, error) from None
        raise broken(path, error) from None
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError(f"{path}: {error.err}") from None
        raise broken(path, error.err or "its data are damaged") from None
    except Exception as error:
        raise broken(path, error) from None


@contextmanager
def _without_warnings_of_pillow() -> Iterator[None]:
    """For `warnings.catch_warnings`, which makes every other warning be shown anew.

    It may be entered from several threads at a time: each puts in and takes out an entry.
    """
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, _OF_PILLOW)
    try:
        yield
    finally:
        with suppress(ValueError):  # someone has put other filters in the place of all
            filters.remove(_OF_PILLOW)


def open_image_file(path: Path, *, max_bytes: int | None = MAX_FILE_BYTES) -> IO[bytes]:
    """The file, open for reading; the caller closes it.

    Args:
        path: the file.
        max_bytes: a larger one is refused; None for who reads only parts of it.

    Raises:
        UnreadableImageError: it is missing, empty, too large, or no file.
        OSError: the machine or the storage failed.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such image file") from None
    except OSError as error:
        if error.errno not in _FAULTS_OF_FILES:
            raise
        raise UnreadableImageError(
            f"{path}: the image cannot be opened: {error.strerror}"
        ) from None
    except ValueError as error:  # a NUL in the name
        raise UnreadableImageError(f"{path}: the image cannot be opened: {error}") from None
    about = os.fstat(file.fileno())
    problem = None
    if not stat.S_ISREG(about.st_mode):
        problem = "is no file, but a pipe or a device; remove it from the set"
    elif about.st_size == 0:
        problem = "the image file is empty (0 bytes); copy it again or remove it"
    elif max_bytes is not None and about.st_size > max_bytes:
        problem = f"the file is larger than {max_bytes} bytes; {SMALLER}"
    if problem is not None:
        file.close()
        raise UnreadableImageError(f"{path}: {problem}")
    return file


def _without_waiting(path: str, flags: int) -> int:
    # A pipe that nobody writes to would be waited for for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@cache
def _known_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this build of Pillow can read."""
    PilImage.init()
    return tuple(name for name in formats if name in PilImage.OPEN)


def identify(
    file: IO[bytes], path: Path | str, formats: tuple[str, ...] = FORMATS
) -> PilImage.Image | None:
    """The image as Pillow knows it, not decoded yet; None if Pillow does not know its format.

    Args:
        file: the image.
        path: for messages.
        formats: some of `FORMATS`; all others are not known.

    Raises:
        TooManyPixelsError: by its head it has too many pixels.
    """
    try:
        opened = PilImage.open(file, formats=_known_formats(formats))
    except UnidentifiedImageError:
        file.seek(0)
        return None
    except PilImage.DecompressionBombError:
        raise too_large(path) from None
    if opened.width * opened.height > MAX_PIXELS:
        raise too_large(path)
    return opened


def _about(path: Path | str, error: OSError) -> OSError:
    """The same, naming the file: reading does not, only opening."""
    return OSError(error.errno, error.strerror, str(path))


def too_large(path: Path | str) -> TooManyPixelsError:
    """The error of an image with more than `MAX_PIXELS`."""
    return TooManyPixelsError(
        f"{path}: the image claims to hold more than {MAX_PIXELS} pixels; where it is not broken, "
        f"{SMALLER}"
    )


def broken(path: Path | str, error: Exception | str) -> UnreadableImageError:
    """The error of an image whose decoder says ``error``."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, KeyError) and reason.isdecimal():  # an entry that its head lacks
        reason = "the TIFF breaks off, or its head is damaged"
    elif isinstance(error, struct.error):
        reason = "its head breaks off"
    return UnreadableImageError(
        f"{path}: the image cannot be decoded: {reason}; copy it again, or remove it from the set"
    )
