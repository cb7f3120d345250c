"""Files of ``torch.save``, read without executing anything in them or trusting what they claim."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
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


def load_plain(content: bytes) -> object:
    """What a file of ``torch.save`` holds, in host memory: tensors and plain values.

    Raises:
        ValueError: it is damaged, holds compressed records or more than plain values, or is not the
            archive that ``torch.save`` writes; the message is a line.
    """
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            # Among them the format before torch 1.6, which has no checksums.
            raise zipfile.BadZipFile("it is damaged or no archive of torch.save")
        check_records(io.BytesIO(content))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(first_line(error)) from None


def check_records(file: Path | IO[bytes]) -> None:
    """Refuse an archive of ``torch.save`` with compressed or damaged records.

    It never writes compressed ones: a few kilobytes of them can swell to any size. It writes a
    checksum of each, but does not read it. Files that are no such archive pass.

    Raises:
        ValueError: names the record, or torch would read another list of records.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if archive.comment or archive.start_dir != _claimed_directory(archive):
            raise ValueError("its list of records is not where it says")
        for record in archive.infolist():
            is_stored = record.compress_type == zipfile.ZIP_STORED
            if not is_stored or record.compress_size != record.file_size:
                raise ValueError(f"the record {record.filename!r} is compressed")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the record {damaged} is damaged (its CRC-32 differs)")


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


def first_line(error: Exception) -> str:
    """What an error says, without the rest of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
