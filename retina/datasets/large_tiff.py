"""Large TIFF files, of which a part at a time is read: memory does not grow with the image.

A TIFF holds its image in tiles or strips, each compressed by itself. One of them with a head of its
own is a small TIFF, which is decoded as any other file is. So every compression is read that the
decoders know, and no pixel differs from those of the whole image.

Read by parts are TIFFs of 8 or 16 bits a sample, the channels of a pixel together, not turned by an
orientation. What the samples of other kinds mean depends on all of the image (see `images`).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import TiffImagePlugin

from retina.datasets.dataset import Image
from retina.datasets.image_files import one_clear_error, open_image_file
from retina.datasets.images import decode_data
from retina.errors import UnreadableImageError
from retina.geometry.tiles import Window
from retina.structures import IntArray, Size

LARGE_PIXELS = 2**25
"""A TIFF with more pixels is worth reading by parts: as a whole it would take 100 MB and more."""

MOST_PIXELS = 2**34
"""Of a whole image; a small file can claim to hold any number of pixels."""

OVERVIEW_PIXELS = 2**23
"""An overview has about so many."""

_LARGEST_PART = 2**25
"""Pixels of a tile or strip; of images in larger ones no part can be read by itself."""

_KEPT_BYTES = 2**27
"""Decoded tiles and strips that are kept, since the next window often needs them again."""

_BLOCK = 64
"""Pixels of the overview that are made at a time, each way."""

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 277, 278, 279
_ORIENTATION, _PLANAR, _SAMPLE_FORMAT = 274, 284, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_UNCOMPRESSED, _YCBCR = 1, 6
_COMPRESSIONS = (_UNCOMPRESSED, 5, 7, 8, 32773, 32946, 34925, 50000, 50001)
"""Whose tiles and strips stand alone: none, LZW, JPEG, deflate, PackBits, LZMA, Zstandard, WebP."""

_COPIED = {
    **{_COMPRESSION: "H", _PHOTOMETRIC: "H", 266: "H", _SAMPLES: "H", _PLANAR: "H"},
    **{_BITS: "H", 317: "H", 320: "H", 338: "H", _SAMPLE_FORMAT: "H", 347: "B", 530: "H"},
}
"""What the head of a part says as that of the image does, and the type of its numbers: the above,
fill order, predictor, colours of a palette, what more channels mean, JPEG's tables, subsampling."""

_TYPES = {"B": 7, "H": 3, "L": 4}
_BLOCK_BYTES = 2**20
"""Strips that are not compressed are read in blocks of about so many, however they are cut."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """How an image is cut: tiles, or strips as wide as the image.

    Attributes:
        height, width: of a part; the last strip may be lower.
        columns: parts beside each other.
        offsets, sizes: of the bytes of each part, row by row.
        is_strips: the last one ends with the image, where a tile would be filled up.
    """

    height: int
    width: int
    columns: int
    offsets: IntArray
    sizes: IntArray
    is_strips: bool


class LargeTiff:
    """A TIFF of which windows are read; the file stays open as long as this lives.

    Attributes:
        path: the file.
        size: of the image.
    """

    def __init__(self, path: Path, file: IO[bytes], tags: Any, grid: _Grid) -> None:
        self.path = path
        self.size: Size = (int(tags[_HEIGHT]), int(tags[_WIDTH]))
        self._file = file
        self._tags = tags
        self._grid = grid
        self._kept: OrderedDict[int, Image] = OrderedDict()
        self._kept_bytes = 0

    @property
    def reduction(self) -> int:
        """How many pixels, each way, one of the overview stands for."""
        return int(np.ceil(np.sqrt(self.size[0] * self.size[1] / OVERVIEW_PIXELS)))

    @cached_property
    def overview(self) -> Image:
        """The whole image, shrunk: each pixel is the mean of `reduction` × `reduction` others.

        Raises:
            UnreadableImageError: the file is broken.
        """
        factor = self.reduction
        height, width = (max(1, side // factor) for side in self.size)
        shrunk = np.empty((height, width, 3), dtype=np.uint8)
        for y in range(0, height, _BLOCK):
            for x in range(0, width, _BLOCK):
                target = shrunk[y : y + _BLOCK, x : x + _BLOCK]
                rows, columns = target.shape[:2]
                part = self.read(
                    Window(
                        x * factor,
                        y * factor,
                        min((x + columns) * factor, self.size[1]),
                        min((y + rows) * factor, self.size[0]),
                    )
                )
                target[:] = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
        return shrunk

    def read(self, window: Window) -> Image:
        """The pixels of a window.

        Args:
            window: within the image.

        Returns:
            ``(h, w, 3)`` uint8 RGB.

        Raises:
            UnreadableImageError: the file is broken.
        """
        grid = self._grid
        pixels = np.empty((*window.size, 3), dtype=np.uint8)
        for row in range(window.y1 // grid.height, -(-window.y2 // grid.height)):
            for column in range(window.x1 // grid.width, -(-window.x2 // grid.width)):
                part = self._part(row * grid.columns + column)
                top, left = row * grid.height, column * grid.width
                y1, y2 = max(window.y1, top), min(window.y2, top + grid.height)
                x1, x2 = max(window.x1, left), min(window.x2, left + grid.width)
                pixels[y1 - window.y1 : y2 - window.y1, x1 - window.x1 : x2 - window.x1] = part[
                    y1 - top : y2 - top, x1 - left : x2 - left
                ]
        return pixels

    def forget(self) -> None:
        """Let go of the memory of what was read; the overview stays."""
        self._kept.clear()
        self._kept_bytes = 0

    def _part(self, number: int) -> Image:
        """A tile or strip, decoded; the ones that were used last are kept."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        part = self._decoded(number)
        self._kept[number] = part
        self._kept_bytes += part.nbytes
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return part

    def _decoded(self, number: int) -> Image:
        grid = self._grid
        height = grid.height
        if grid.is_strips:
            height = min(height, self.size[0] - number * height)
        with one_clear_error(self.path):
            self._file.seek(int(grid.offsets[number]))
            content = self._file.read(int(grid.sizes[number]))
            if len(content) < grid.sizes[number]:
                raise UnreadableImageError(
                    f"{self.path}: the TIFF breaks off in the middle; copy it again"
                )
            part = decode_data(_small_tiff(self._tags, (height, grid.width), content), self.path)
        return np.ascontiguousarray(part)


def open_large_tiff(path: Path) -> LargeTiff | None:
    """A file to be read by parts; None where it is no TIFF, not large, or of another kind.

    Raises:
        UnreadableImageError: the file is missing, empty, or a TIFF whose head is damaged.
    """
    file = open_image_file(path, max_bytes=None)
    try:
        with one_clear_error(path):
            tags = _read_tags(file)
            grid = None if tags is None else _grid(tags)
    except BaseException:
        file.close()
        raise
    if grid is None:
        file.close()
        return None
    return LargeTiff(path, file, tags, grid)


def _read_tags(file: IO[bytes]) -> Any | None:
    """What the head of a TIFF says of its first image; None for another file."""
    magic = file.read(4)
    if magic not in _MAGIC:
        return None
    file.seek(0)
    head = file.read(16 if magic[2:] in (b"+\0", b"\0+") else 8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _grid(tags: Any) -> _Grid | None:
    """How the image is cut; None where it is not large, or its parts cannot stand alone."""
    height, width = int(tags[_HEIGHT]), int(tags[_WIDTH])
    is_tiled = _TILE_WIDTH in tags
    offsets = np.atleast_1d(tags.get(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ()))
    sizes = np.atleast_1d(tags.get(_TILE_SIZES if is_tiled else _STRIP_SIZES, ()))
    if not _can_stand_alone(tags, height * width):
        return None
    if is_tiled:
        part: Size = (int(tags[_TILE_HEIGHT]), int(tags[_TILE_WIDTH]))
    else:
        part = (min(int(tags.get(_ROWS_PER_STRIP, height)), height), width)
        row_bytes = _bytes_of_row(tags, width)
        if row_bytes and _are_one_block(offsets, sizes, height * row_bytes):
            rows = min(height, max(1, _BLOCK_BYTES // row_bytes))
            starts = np.arange(0, height, rows)
            offsets = offsets[0] + starts * row_bytes
            sizes = np.minimum(rows, height - starts) * row_bytes
            part = (rows, width)
    columns = -(-width // part[1])
    num_parts = columns * -(-height // part[0])
    if part[0] * part[1] > _LARGEST_PART or not len(offsets) == len(sizes) == num_parts:
        return None
    return _Grid(*part, columns, offsets, sizes, is_strips=not is_tiled)


def _can_stand_alone(tags: Any, num_pixels: int) -> bool:
    """Whether the image is large, and of a kind of which each part can be decoded by itself."""
    bits = set(np.atleast_1d(tags.get(_BITS, 1)).tolist())
    formats = set(np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)).tolist())
    return (
        LARGE_PIXELS < num_pixels <= MOST_PIXELS
        and bits in ({8}, {16})
        and formats == {1}
        and tags.get(_COMPRESSION, _UNCOMPRESSED) in _COMPRESSIONS
        and tags.get(_ORIENTATION, 1) == 1
        and (tags.get(_SAMPLES, 1) == 1 or tags.get(_PLANAR, 1) == 1)
    )


def _bytes_of_row(tags: Any, width: int) -> int:
    """Of an image that is not compressed; else 0."""
    is_raw = tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    if not is_raw or tags.get(_PHOTOMETRIC) == _YCBCR:
        return 0
    return width * int(np.atleast_1d(tags[_BITS]).sum()) // 8


def _are_one_block(offsets: IntArray, sizes: IntArray, num_bytes: int) -> bool:
    """Whether strips follow each other without a gap, so that they can be cut at any row."""
    if not 0 < len(offsets) == len(sizes) or int(sizes.sum()) != num_bytes:
        return False
    return bool((offsets[:-1] + sizes[:-1] == offsets[1:]).all())


def _small_tiff(tags: Any, size: Size, content: bytes) -> bytes:
    """A TIFF of one strip: a tile or strip of a large one, with a head of its own."""
    order = "<" if tags.prefix == b"II" else ">"
    entries: dict[int, tuple[str, Any]] = {
        tag: (kind, tags[tag]) for tag, kind in _COPIED.items() if tag in tags
    }
    head_bytes = 8 + 2 + 12 * (len(entries) + 5) + 4
    extra = b""
    entries |= {
        _HEIGHT: ("L", size[0]),
        _WIDTH: ("L", size[1]),
        _ROWS_PER_STRIP: ("L", size[0]),
        _STRIP_OFFSETS: ("L", 0),  # see below
        _STRIP_SIZES: ("L", len(content)),
    }
    packed = {tag: _packed(order, *entry) for tag, entry in entries.items()}
    lines = []
    data_bytes = sum(len(values) + len(values) % 2 for _, _, values in packed.values())
    for tag in sorted(packed):
        kind, count, values = packed[tag]
        if tag == _STRIP_OFFSETS:
            values = struct.pack(order + "L", head_bytes + data_bytes)
        elif len(values) > 4:
            at = head_bytes + len(extra)
            extra += values + b"\0" * (len(values) % 2)
            values = struct.pack(order + "L", at)
        lines.append(struct.pack(order + "HHL", tag, kind, count) + values.ljust(4, b"\0"))
    head = tags.prefix + struct.pack(order + "HLH", 42, 8, len(lines))
    return b"".join([head, *lines, b"\0" * 4, extra.ljust(data_bytes, b"\0"), content])


def _packed(order: str, kind: str, values: Any) -> tuple[int, int, bytes]:
    """The number of a type, how many values there are, and their bytes."""
    if isinstance(values, bytes):
        return _TYPES[kind], len(values), values
    numbers = values if isinstance(values, tuple) else (values,)
    return _TYPES[kind], len(numbers), struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
