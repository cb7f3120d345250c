"""TIFF files that Pillow and OpenCV do not write: tiled ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt


def write_tiled(path: Path, image: npt.NDArray[np.generic], *, tile: int, order: str = "<") -> None:
    """A classic TIFF of deflated tiles, ``(h, w, 3)`` of 8 or 16 bits, in either byte order."""
    height, width = image.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    filled = np.zeros((rows * tile, columns * tile, 3), image.dtype.newbyteorder(order))
    filled[:height, :width] = image
    parts = [
        zlib.compress(filled[y : y + tile, x : x + tile].tobytes())
        for y in range(0, rows * tile, tile)
        for x in range(0, columns * tile, tile)
    ]
    bits = struct.pack(order + "3H", *[8 * image.dtype.itemsize] * 3)
    tables_at = 8 + sum(map(len, parts)) + len(bits)
    starts = np.cumsum([8 + len(bits), *map(len, parts)])[:-1]
    number = len(parts)
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 3, 1, 8)),
        *((262, 3, 1, 2), (277, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile)),
        *((324, 4, number, tables_at), (325, 4, number, tables_at + 4 * number)),
    ]
    lines = [
        struct.pack(order + "HHL", tag, kind, count)
        + (
            struct.pack(order + "HH", value, 0)
            if (kind, count) == (3, 1)
            else struct.pack(order + "L", value)
        )
        for tag, kind, count, value in tags
    ]
    tables = struct.pack(f"{order}{2 * number}L", *starts, *map(len, parts))
    head = struct.pack(
        order + "2sHL", b"II" if order == "<" else b"MM", 42, tables_at + len(tables)
    )
    ifd = struct.pack(order + "H", len(lines)) + b"".join(lines) + b"\0" * 4
    path.write_bytes(head + bits + b"".join(parts) + tables + ifd)
