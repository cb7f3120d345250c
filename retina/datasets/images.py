"""Image files of every kind as ``(H, W, 3)`` uint8 RGB, or one clear error.

- Alpha is dropped, palettes are looked up, CMYK is converted, of several frames the first is taken.
- 16-bit samples are scaled by 1/257 and rounded.
- Float samples are fractions of white where all lie within 0 … 1, else 8-bit values where all lie
  within 0 … 255, else 16-bit values; 32-bit integers are 8-bit values where all lie within 0 … 255,
  else 16-bit values. Anything beyond has no agreed meaning and is refused.
- The EXIF orientation is applied unless the annotation gives the size of the unrotated image.
- A file that breaks off is refused, although decoders would fill the rest with grey.
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
from PIL import UnidentifiedImageError

from retina.datasets.dataset import Image
from retina.errors import UserError
from retina.structures import Size

MAX_PIXELS = 178_956_970
"""Larger images are refused, since a small file can claim to hold any number of pixels: Pillow's
own bound."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""What a file that is looked for by its stem may end with."""

_ORIENTATION = 0x0112
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
        UserError: the file is missing, empty, no image, or a JPEG that breaks off.
    """
    with _open_file(path) as file:
        opened = _identify(file, path)
        if opened is not None:
            header = _header(opened, path)
            if opened.format in ("JPEG", "MPO"):
                _require_end(file, path)
            return header
        pixels = _decode_unchanged(file.read(), path)
    return ImageHeader((int(pixels.shape[0]), int(pixels.shape[1])), 1)


def decode_image(path: Path, expected_size: Size | None = None) -> Image:
    """Decode an image file.

    Args:
        path: the file.
        expected_size: the annotated height and width.

    Returns:
        ``(H, W, 3)`` uint8 RGB, of the expected size if there is one.

    Raises:
        UserError: the file is missing, empty, broken, cut off, too large or no image, or its size
            is not the expected one.
    """
    with _open_file(path) as file:
        data = file.read()
    opened = _identify(io.BytesIO(data), path)
    if opened is None:
        pixels = _as_rgb(_decode_unchanged(data, path), path)
    else:
        orientation = orientation_to_apply(_header(opened, path), expected_size, path)
        pixels = _oriented(_pixels(opened, data, path), orientation)
    size = (int(pixels.shape[0]), int(pixels.shape[1]))
    if expected_size is not None and size != expected_size:
        raise _size_error(path, size, expected_size)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def orientation_to_apply(header: ImageHeader, expected_size: Size | None, path: Path) -> int:
    """The EXIF orientation to turn an image by, so that it has its annotated size.

    Raises:
        UserError: the image has another size either way.
    """
    if expected_size is None or header.oriented_size == expected_size:
        return header.orientation
    if header.stored_size == expected_size:
        return 1
    raise _size_error(path, header.oriented_size, expected_size)


def _size_error(path: Path, size: Size, expected_size: Size) -> UserError:
    return UserError(
        f"{path}: the image is {size[0]}×{size[1]} pixels (height × width), but its annotation "
        f"says {expected_size[0]}×{expected_size[1]}; its boxes would be wrong: correct the "
        "annotation or use the image that was annotated"
    )


def _open_file(path: Path) -> IO[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except OSError as error:
        raise UserError(f"{path}: the image cannot be opened: {error.strerror}") from None
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise UserError(f"{path}: the image file is empty (0 bytes); copy it again or remove it")
    return file


def _identify(file: IO[bytes], path: Path) -> PilImage.Image | None:
    """The image as Pillow knows it, not decoded yet; None if Pillow does not know its format."""
    try:
        opened = PilImage.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        return None
    except PilImage.DecompressionBombError:
        raise _too_large(path) from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on a broken file
        raise _broken(path, error) from None
    if opened.width * opened.height > MAX_PIXELS:
        raise _too_large(path)
    return opened


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: the image claims to hold more than {MAX_PIXELS} pixels; it is broken, or has to "
        "be cut into tiles"
    )


def _broken(path: Path, error: Exception | str) -> UserError:
    return UserError(
        f"{path}: the image cannot be decoded: {error}; copy it again, or remove it from the set"
    )


def _header(opened: PilImage.Image, path: Path) -> ImageHeader:
    orientation = 1
    # Pillow turns TIFF images by itself. A PNG whose EXIF data follow the pixels would have to be
    # decoded to find them.
    if opened.format != "TIFF" and "exif" in opened.info:
        try:
            orientation = opened.getexif().get(_ORIENTATION, 1)
        except Exception as error:
            raise _broken(path, f"its EXIF data are damaged ({error})") from None
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageHeader((opened.height, opened.width), orientation if valid else 1)


def _pixels(opened: PilImage.Image, data: bytes, path: Path) -> npt.NDArray[np.uint8]:
    """``(h, w, 3)`` uint8 RGB as stored, not turned."""
    if opened.format in ("JPEG", "MPO"):
        if not _jpeg_is_whole(data):
            raise _broken(path, _BREAKS_OFF)
        if opened.mode in ("L", "RGB"):
            return _decode_jpeg(data, path)
    if _has_deep_colour(opened, data):
        return _as_rgb(_decode_unchanged(data, path), path)
    try:
        if opened.mode[0] in "IF":
            values = np.asarray(opened)
            if opened.mode == "I" and opened.format in ("PNG", "PPM"):
                values = values.astype(np.uint16)  # how older versions of Pillow hold 16 bits
            return _as_rgb(values, path, is_bgr=False)
        return np.asarray(opened.convert("RGB"))
    except (MemoryError, UserError):
        raise
    except Exception as error:
        raise _broken(path, error) from None


def _decode_jpeg(data: bytes, path: Path) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is None:
        raise _broken(path, "its JPEG data are damaged")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), dtype=np.uint8)


def _require_end(file: IO[bytes], path: Path) -> None:
    """Refuse a JPEG that breaks off, in most cases by a look at its last bytes."""
    file.seek(-min(64, file.seek(0, os.SEEK_END)), os.SEEK_END)
    if b"\xff\xd9" not in file.read():
        file.seek(0)
        if not _jpeg_is_whole(file.read()):
            raise _broken(path, _BREAKS_OFF)


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the first scan of a JPEG is followed by an end-of-image marker.

    Compressed pixels never contain that marker; a thumbnail in the headers does, so these are
    stepped over.
    """
    position = 2
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xff":  # fill bytes may stand before a marker
            position += 1
            continue
        if marker == b"\xda":
            return data.find(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _has_deep_colour(opened: PilImage.Image, data: bytes) -> bool:
    """Whether there are several channels of more than 8 bits, of which Pillow keeps only 8."""
    if opened.mode[0] in "IF":
        return False
    if opened.format == "PNG":
        return data[24] == 16
    if opened.format == "TIFF":
        return bool(max(opened.tag_v2.get(258, (8,))) > 8)  # type: ignore[attr-defined]
    return False


def _decode_unchanged(data: bytes, path: Path) -> npt.NDArray[np.generic]:
    """The samples as stored: grey ``(h, w)``, or BGR or BGRA ``(h, w, 3 | 4)``."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _broken(path, str(error).splitlines()[0]) from None
    if pixels is None:
        raise UserError(f"{path}: is no image, or one of an unknown format or badly damaged")
    return np.asarray(pixels)


def _as_rgb(
    values: npt.NDArray[np.generic], path: Path, *, is_bgr: bool = True
) -> npt.NDArray[np.uint8]:
    scaled = _to_uint8(values, path)
    if scaled.ndim == 2:
        scaled = scaled[:, :, None]
    if scaled.shape[2] < 3:  # grey, or grey and alpha
        return np.repeat(scaled[:, :, :1], 3, axis=2)
    return scaled[:, :, 2::-1] if is_bgr else scaled[:, :, :3]


def _to_uint8(values: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.uint8]:
    """By the rules that the head of this file states."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if not (low >= 0 and high <= 65535):  # also true of NaN
        raise UserError(
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
