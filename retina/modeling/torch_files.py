"""Files of ``torch.save``, read without executing anything in them or trusting what they claim."""

from __future__ import annotations

import io
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
        ValueError: names the record.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"the record {record.filename!r} is compressed")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the record {damaged} is damaged (its CRC-32 differs)")


def first_line(error: Exception) -> str:
    """What an error says, without the rest of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
