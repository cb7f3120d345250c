"""PNG files that only their pixels are wanted of."""

from __future__ import annotations

import zlib
from pathlib import Path

from retina.datasets.image_files import broken

_END = b"\0\0\0\0IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")


def png_of_pixels(data: bytes, path: Path | str) -> bytes:
    """A PNG of its pixels alone, with an end.

    The decoder prints what it thinks of other chunks (colour profiles, animations), and some files
    it refuses for them, or for lack of the last one.

    Raises:
        UnreadableImageError: it is damaged, or breaks off before its end chunk.
    """
    kept, position = [data[:8]], 8
    while kind := data[position + 4 : position + 8].replace(b"IEND", b""):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if kind in (b"IHDR", b"IDAT"):
            if zlib.crc32(data[position + 4 : end - 4]).to_bytes(4, "big") != data[end - 4 : end]:
                raise broken(path, "the PNG is damaged, or breaks off in the middle")
            kept.append(data[position:end])
        position = end
    return b"".join((*kept, _END))
