"""Image files of every kind as ``(H, W, 3)`` uint8 RGB, or one clear error.

- Alpha is dropped, palettes are looked up, CMYK is converted, of several frames the first is taken.
- 16-bit samples are scaled by 1/257 and rounded.
- Float samples are fractions of white where all lie within 0 … 1, else 8-bit values where all lie
  within 0 … 255, else 16-bit values; 32-bit integers are 8-bit values where all lie within 0 … 255,
  else 16-bit values. Anything beyond has no agreed meaning and is refused.
- The EXIF orientation is applied unless the annotation gives the size of the unrotated image.
- A file that breaks off is refused, although decoders would fill the rest with grey. One that lacks
  nothing but its end marker is whole.
- How many pixels a file claims to hold is read from its head and bounded before any is decoded.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import TiffImagePlugin

from retina.datasets.dataset import Image
from retina.datasets.image_files import (
    MAX_PIXELS,
    broken,
    identify,
    one_clear_error,
    open_image_file,
    too_large,
)
from retina.datasets.jpeg import whole_jpeg
from retina.datasets.png import png_of_pixels
from retina.errors import UnreadableImageError
from retina.structures import Size

_ORIENTATION = 0x0112
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS = 256, 257, 258
_BREAKS_OFF = "the JPEG breaks off in the middle"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the head of an image file says.

    Attributes:
        stored_size: before the EXIF orientation is applied.
        orientation: EXIF's number, 1 (as stored) to 8.
    """

    stored_size: Size
    orientation: int

    @property
    def oriented_size(self) -> Size:
        """The size with the EXIF orientation applied."""
        height, width = self.stored_size
        return (width, height) if self.orientation >= 5 else (height, width)


def read_header(path: Path) -> ImageHeader:
    """The size and orientation of an image file, in most formats without decoding it.

    Raises:
        UnreadableImageError: the file is missing, empty, no image, or a JPEG that breaks off.
    """
    with open_image_file(path) as file, one_clear_error(path):
        opened = identify(file, path)
        if opened is not None:
            header = _header(opened, path)
            if opened.format in ("JPEG", "MPO"):
                _require_end(file, path)
            return header
        pixels = _decode_other(file.read(), path)
    return ImageHeader((int(pixels.shape[0]), int(pixels.shape[1])), 1)


def convert_image(opened: PilImage.Image, name: str) -> Image:
    """The pixels of an image that Pillow holds, by the rules for files; it is not changed.

    Args:
        opened: of any mode, decoded or not.
        name: for messages.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        UnreadableImageError: it is broken, cut off, too large or has no pixels.
    """
    with one_clear_error(name):
        if not 0 < opened.width * opened.height <= MAX_PIXELS:
            raise too_large(name) if opened.width else broken(name, "it has no pixels")
        orientation = _header(opened, name).orientation
        return np.ascontiguousarray(_oriented(_pixels_of_pillow(opened, name), orientation))


def decode_image(path: Path, expected_size: Size | None = None) -> Image:
    """Decode an image file.

    Args:
        path: the file.
        expected_size: the annotated height and width.

    Returns:
        ``(H, W, 3)`` uint8 RGB, of the expected size if there is one.

    Raises:
        UnreadableImageError: the file is missing, empty, broken, cut off, too large or no image, or
            its size is not the expected one.
    """
    with open_image_file(path) as file, one_clear_error(path):
        pixels = decode_data(file.read(), path, expected_size)
    size = (int(pixels.shape[0]), int(pixels.shape[1]))
    if expected_size is not None and size != expected_size:
        raise _size_error(path, size, expected_size)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def decode_bytes(data: bytes, name: str) -> Image:
    """The same of the content of a file.

    Args:
        data: what a file would hold.
        name: for messages.

    Raises:
        UnreadableImageError: as `decode_image`.
    """
    with one_clear_error(name):
        return np.ascontiguousarray(decode_data(data, name), dtype=np.uint8)


def decode_data(
    data: bytes, path: Path | str, expected_size: Size | None = None
) -> npt.NDArray[np.uint8]:
    """The same of the bytes of a file; ``path`` is for messages. It may raise anything."""
    opened = identify(io.BytesIO(data), path)
    if opened is None:
        return _as_rgb(_decode_other(data, path), path)
    orientation = orientation_to_apply(_header(opened, path), expected_size, path)
    return _oriented(_pixels(opened, data, path), orientation)


def decode_identified(opened: PilImage.Image, data: bytes, name: str) -> Image:
    """The pixels of an image that `identify` has looked at, by the rules for files.

    Args:
        opened: what `identify` gave of ``data``.
        data: the whole file.
        name: for messages.

    Returns:
        ``(H, W, 3)`` uint8 RGB, the EXIF orientation applied.

    Raises:
        UnreadableImageError: it is broken or cut off.
    """
    with one_clear_error(name):
        orientation = _header(opened, name).orientation
        pixels = _oriented(_pixels(opened, data, name), orientation)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def orientation_to_apply(header: ImageHeader, expected_size: Size | None, path: Path | str) -> int:
    """The EXIF orientation to turn an image by, so that it has its annotated size.

    Raises:
        UnreadableImageError: the image has another size either way.
    """
    if expected_size is None or header.oriented_size == expected_size:
        return header.orientation
    if header.stored_size == expected_size:
        return 1
    raise _size_error(path, header.oriented_size, expected_size)


def _size_error(path: Path | str, size: Size, expected_size: Size) -> UnreadableImageError:
    return UnreadableImageError(
        f"{path}: the image is {size[0]}×{size[1]} pixels (height × width), but its annotation "
        f"says {expected_size[0]}×{expected_size[1]}; its boxes would be wrong: correct the "
        "annotation or use the image that was annotated"
    )


def _header(opened: PilImage.Image, path: Path | str) -> ImageHeader:
    orientation = 1
    # Pillow turns TIFF images by itself. A PNG whose EXIF data follow the pixels would have to be
    # decoded to find them.
    if opened.format != "TIFF" and "exif" in opened.info:
        try:
            orientation = opened.getexif().get(_ORIENTATION, 1)
        except Exception as error:
            raise broken(path, f"its EXIF data are damaged ({error})") from None
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageHeader((opened.height, opened.width), orientation if valid else 1)


def _pixels(opened: PilImage.Image, data: bytes, path: Path | str) -> npt.NDArray[np.uint8]:
    """``(h, w, 3)`` uint8 RGB as stored, not turned."""
    if opened.format in ("JPEG", "MPO"):
        whole = whole_jpeg(data)
        if whole is None:
            raise broken(path, _BREAKS_OFF)
        if opened.mode in ("L", "RGB"):
            return _decode_jpeg(whole, path)
        opened = PilImage.open(io.BytesIO(whole), formats=("JPEG",))
    if _has_deep_colour(opened, data):
        content = png_of_pixels(data, path) if opened.format == "PNG" else data
        return _as_rgb(_decode_unchanged(content, path), path)
    return _pixels_of_pillow(opened, path)


def _pixels_of_pillow(opened: PilImage.Image, path: Path | str) -> npt.NDArray[np.uint8]:
    """The same of an image that Pillow holds, whatever its mode."""
    if opened.mode[0] in "IF":
        values = np.asarray(opened)
        if opened.mode == "I" and opened.format in ("PNG", "PPM"):
            values = values.astype(np.uint16)  # how older versions of Pillow hold 16 bits
        return _as_rgb(values, path, is_bgr=False)
    return np.asarray(opened.convert("RGB"))


def _decode_jpeg(data: bytes, path: Path | str) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is None:
        raise broken(path, "its JPEG data are damaged")
    return np.asarray(pixels, dtype=np.uint8)


def _require_end(file: IO[bytes], path: Path) -> None:
    """Refuse a JPEG that breaks off, in most cases by a look at its last bytes."""
    file.seek(-min(64, file.seek(0, os.SEEK_END)), os.SEEK_END)
    if b"\xff\xd9" not in file.read():
        file.seek(0)
        if whole_jpeg(file.read()) is None:
            raise broken(path, _BREAKS_OFF)


def _has_deep_colour(opened: PilImage.Image, data: bytes) -> bool:
    """Whether there are several channels of more than 8 bits, of which Pillow keeps only 8."""
    if opened.mode[0] in "IF":
        return False
    if opened.format == "PNG":
        return data[24] == 16
    if opened.format == "TIFF":
        return bool(max(opened.tag_v2.get(_TIFF_BITS, (8,))) > 8)  # type: ignore[attr-defined]
    return False


def _decode_other(data: bytes, path: Path | str) -> npt.NDArray[np.generic]:
    """The samples of a TIFF of a kind that Pillow does not know: several float channels, say."""
    if not data.startswith(_TIFF_MAGIC):
        raise UnreadableImageError(
            f"{path}: is no image, or one of an unknown format or badly damaged"
        )
    file = io.BytesIO(data)
    head = file.read(16 if data[2:4] in (b"+\0", b"\0+") else 8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    if int(tags[_TIFF_WIDTH]) * int(tags[_TIFF_HEIGHT]) > MAX_PIXELS:
        raise too_large(path)
    return _decode_unchanged(data, path)


def _decode_unchanged(data: bytes, path: Path | str) -> npt.NDArray[np.generic]:
    """The samples as stored: grey ``(h, w)``, or BGR or BGRA ``(h, w, 3 | 4)``."""
    # Or it prints its own account of a damaged file beside our message.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise broken(path, "its data are damaged")
    return np.asarray(pixels)


def _as_rgb(
    values: npt.NDArray[np.generic], path: Path | str, *, is_bgr: bool = True
) -> npt.NDArray[np.uint8]:
    scaled = _to_uint8(values, path)
    if scaled.ndim == 2:
        scaled = scaled[:, :, None]
    if scaled.shape[2] < 3:  # grey, or grey and alpha
        return np.repeat(scaled[:, :, :1], 3, axis=2)
    return scaled[:, :, 2::-1] if is_bgr else scaled[:, :, :3]


def _to_uint8(values: npt.NDArray[np.generic], path: Path | str) -> npt.NDArray[np.uint8]:
    """By the rules that the head of this file states."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype.newbyteorder("=") == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if not (low >= 0 and high <= 65535):  # also true of NaN
        raise UnreadableImageError(
            f"{path}: its {values.dtype} samples lie between {low:g} and {high:g}; convert it to "
            "8 or 16 bits, since how bright these are meant to be is not known"
        )
    white = 65535 if high > 255 else 255
    if white == 255 and high <= 1 and np.issubdtype(values.dtype, np.floating):
        white = 1
    return np.rint(numbers * (255 / white)).astype(np.uint8)


def _oriented(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """The image turned as EXIF asks for."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
