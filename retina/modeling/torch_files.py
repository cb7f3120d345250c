"""Files of ``torch.save``, read without executing anything in them or trusting what they claim."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError

UNREADABLE = (
    *(OSError, EOFError, SafetensorError, zipfile.BadZipFile, zlib.error, struct.error),
    *(RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(AssertionError, OverflowError, MemoryError, pickle.UnpicklingError),
)
"""What reading a damaged or malicious weight file may raise."""


class RefusedFileError(ValueError):
    """A file is not read, for the reason that the message says."""


def load_plain(content: bytes) -> object:
    """What a file of ``torch.save`` holds, in host memory: tensors and plain values.

    Raises:
        ValueError: it is damaged, holds compressed records or more than plain values, or is not the
            archive that ``torch.save`` writes; the message is a line.
    """
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            # Among them the format before torch 1.6, which has no checksums.
            raise RefusedFileError("it is damaged or no archive of torch.save")
        check_records(io.BytesIO(content))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(why_unreadable(error)) from None


def load_foreign(path: Path) -> object:
    """What a file of any program's ``torch.save`` holds, in host memory.

    Nothing in it is executed: beside the tensors a few kinds of objects are known that training
    scripts keep, such as their arguments, and an empty object stands for each.

    Raises:
        Exception: one of `UNREADABLE`; `why_unreadable` says why.
    """
    check_records(path)
    stand_ins: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (type(name.rpartition(".")[2], (_Passed,), {}), name) for name in _PASSED_OVER
    ]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


class _Passed:
    """Stands for an object that is not read."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_PASSED_OVER = (
    *("argparse.Namespace", "types.SimpleNamespace", "datetime.datetime", "datetime.timedelta"),
    *(
        f"{module}.{kind}Path"
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "Windows", "PurePosix", "PureWindows")
    ),
    *("numpy.dtype", "numpy.ndarray"),
    *(
        f"numpy.{core}.multiarray.{function}"
        for core in ("core", "_core")
        for function in ("scalar", "_reconstruct")
    ),
)
"""By the names in the files; the classes and functions themselves are never called."""


def why_unreadable(error: Exception) -> str:
    """Why a file of weights cannot be read: a clause, in words of our own."""
    if isinstance(error, RefusedFileError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it claims to hold more than fits into memory"
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused is not None:
        return (
            f"it holds '{refused[1]}', and what is no tensor or plain value is not read, since "
            "that could run code; save the weights alone: torch.save(model.state_dict(), FILE)"
        )
    return "it is damaged, cut short, or of another format"


def check_records(file: Path | IO[bytes]) -> None:
    """Refuse an archive of ``torch.save`` with compressed or damaged records.

    It never writes compressed ones: a few kilobytes of them can swell to any size. It writes a
    checksum of each, but does not read it. Files that are no such archive pass.

    Raises:
        RefusedFileError: names the record, or torch would read another list of records.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if archive.comment or archive.start_dir != _claimed_directory(archive):
            raise RefusedFileError("its list of records is not where it says")
        for record in archive.infolist():
            is_stored = record.compress_type == zipfile.ZIP_STORED
            if not is_stored or record.compress_size != record.file_size:
                raise RefusedFileError(f"the record {record.filename!r} is compressed")
        damaged = archive.testzip()
    if damaged is not None:
        raise RefusedFileError(f"the record {damaged!r} is damaged (its CRC-32 differs)")


def _claimed_directory(archive: zipfile.ZipFile) -> int:
    """Where an archive without a comment says that its list of records begins; -1 for nowhere.

    Python takes the list that ends where the end record begins, torch the one at the claimed place:
    a file may have both. The end record is 22 bytes; before it may lie that of ZIP64, of 56 bytes,
    and 20 that say where.
    """
    assert archive.fp is not None
    size = archive.fp.seek(0, os.SEEK_END)
    archive.fp.seek(max(0, size - 98))
    tail = archive.fp.read().rjust(98, b"\0")
    if tail[-42:-38] != b"PK\6\7":
        return int.from_bytes(tail[-6:-2], "little")
    if int.from_bytes(tail[-34:-26], "little") != size - 98:
        return -1
    return int.from_bytes(tail[48:56], "little")
