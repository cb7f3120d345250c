"""Whether the compressed pixels of a JPEG are all there, which its decoders do not say."""

from __future__ import annotations

import io
import random
import re

from PIL import Image as PilImage

_END = b"\xff\xd9"
_SCAN_MARKER = b"\xff\xda"
_FRAME, _SCAN = "frame", "scan"
_KINDS = {
    **{n: _FRAME for n in range(0xC0, 0xD0) if n not in (0xC4, 0xC8, 0xCC)},
    0xDA: _SCAN,
}
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
"""Among compressed pixels: neither an escaped 0xFF nor a mark to start again from."""

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_NOISES = [
    bytes(flip ^ n for n in random.Random(0).choices(range(1, 255), k=4096)) for flip in (0, 255)
]
_LAST_BYTES = 16


def whole_jpeg(data: bytes) -> bytes | None:
    """A JPEG with its end-of-image marker, or None where it breaks off.

    A file that lacks nothing but this marker (its last two bytes; zeros may follow) is whole: the
    marker is put there.
    """
    first_scan = _first_scan(data)
    if first_scan is None:
        return None
    # Compressed pixels never contain that marker.
    return data if data.rfind(_END, first_scan) >= 0 else _ended(data)


def num_scans(data: bytes) -> int:
    """How many scans a JPEG has; what cameras append behind its end is no part of it."""
    first = _first_scan(data)
    if first is None:
        return data.count(_SCAN_MARKER)
    end = data.find(_END, first)
    return data.count(_SCAN_MARKER, first, end if end >= 0 else len(data))


def _first_scan(data: bytes) -> int | None:
    """Where the pixels begin; a thumbnail in the headers is stepped over."""
    position, num_frames = 2, 0
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xff":  # fill bytes may stand before a marker
            position += 1
            continue
        kind = _KINDS.get(ord(marker)) if marker else None
        if kind == _SCAN:
            # Of two frame headers one reader would take the first size, another the second.
            return position if num_frames == 1 else None
        num_frames += kind == _FRAME
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _ended(data: bytes) -> bytes | None:
    """The JPEG with the marker that it lacks, if it lacks nothing else.

    The pixels are all there if it makes no difference to them what comes instead of the marker; and
    they end where the data end, and no foreign bytes stand in their place, if the last bytes do
    make one (or the whole last scan makes none, as those of flat colour).
    """
    pixels = data.removesuffix(b"\xff")  # the first half of the marker
    if pixels.endswith(bytes(3)):
        pixels = pixels.rstrip(b"\0")
        pixels += b"\0" * pixels.endswith(b"\xff")  # an escaped 0xFF
    last_scan = _last_scan(pixels)
    if last_scan is None:
        return None
    tails, seen = _tails(pixels), _decoded(pixels + _END)

    def is_all(start: bytes) -> bool:
        return all(_decoded(start + tail) == seen for tail in tails)

    if seen is None or not is_all(pixels):
        return None
    without_last = pixels[: max(last_scan, len(pixels) - _LAST_BYTES)]
    return pixels + _END if not is_all(without_last) or is_all(pixels[:last_scan]) else None


def _tails(pixels: bytes) -> list[bytes]:
    """What may come after pixels: two ends, with all bits different.

    They hold the next of the markers from which decoders start again (0xFFD0 to 0xFFD7 in turn):
    what stands before one is not read behind it.
    """
    restarts = _RESTART.findall(pixels)
    number = restarts[-1][1] + 1 if restarts else 0
    markers = [bytes((0xFF, 0xD0 + (number + i) % 8)) for i in range(2)]
    return [noise + b"".join(m + noise for m in markers) + _END for noise in _NOISES]


def _decoded(data: bytes) -> bytes | None:
    with PilImage.open(io.BytesIO(data), formats=("JPEG",)) as opened:
        try:
            return opened.tobytes()
        except OSError:
            return None


def _last_scan(data: bytes) -> int | None:
    """Where the pixels of the last scan begin, or None if there are scans still to come.

    A progressive JPEG sends the coefficients (0 to 63) of its components in several scans, and the
    bits of each from the highest (ITU-T T.81, G.1.2).
    """
    lacking: set[tuple[int, int]] = set()
    position, last = 2, None
    while found := _MARKER.search(data, position):
        start = found.end()
        position = start + int.from_bytes(data[start : start + 2], "big")
        segment, kind = data[start + 2 : position], _KINDS.get(found[1][0])
        if kind == _FRAME:
            lacking = {(component, k) for component in segment[6::3] for k in range(64)}
        elif kind == _SCAN:
            if len(segment) < 4 or len(segment) != 4 + 2 * segment[0]:
                return None
            last, (first, final, bits) = position, segment[-3:]
            if bits & 0xF == 0:  # down to the lowest bit
                lacking -= {(c, k) for c in segment[1:-3:2] for k in range(first, final + 1)}
    return None if lacking else last
