"""Video files, read and written with PyAV (the extra ``video``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from retina.datasets.dataset import Image
from retina.errors import UnreadableImageError, UserError
from retina.prediction.drawing import Picture
from retina.prediction.inputs import Input, Shot
from retina.prediction.video_length import SeenLength
from retina.storage import replacing
from retina.wording import first_line

if TYPE_CHECKING:
    import av

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
    *(".mts", ".m2ts", ".ogv"),
)
"""What a file that is taken for a video ends with."""

_TICKS = 90_000
"""Of a second, in a written video: what broadcasting counts in; all usual rates divide it."""

_CODECS = ("libx264", "mpeg4")
"""The first that this FFmpeg has is written."""


def import_av() -> Any:
    """PyAV.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError:
        raise UserError(
            "videos are read with PyAV, which is not installed: "
            "pip install 'retina-detector[video]'"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # it would print its own account of a damaged file
    return av


@dataclass(frozen=True, slots=True)
class Video(Input):
    """A video file, of which every ``stride``-th frame is an image, from the first one on."""

    path: Path
    stride: int = 1

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def stem(self) -> str:
        """Of its name."""
        return self.path.stem

    @property
    def source(self) -> Path:
        """Its path."""
        return self.path

    @property
    def identity(self) -> str:
        """Its path and the stride."""
        return f"{self.path.absolute()} by {self.stride}"

    def shots(self) -> Iterator[Shot]:
        """Its frames; a fault in the middle is the last of them."""
        waiting: Shot | None = None
        for shot in self._frames():
            if waiting is not None:
                yield waiting
            waiting = shot
        if waiting is None:
            told = f"{self.path}: the video has no frame; copy it again, or take it out"
            waiting = Shot(_raising(UnreadableImageError(told)), 0)
        yield Shot(waiting.read, waiting.frame, waiting.time, is_last=True)

    def _frames(self) -> Iterator[Shot]:
        av, number, start = import_av(), -1, None
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise UnreadableImageError(
                        f"{self.path}: holds no video, only sound or text; take it out"
                    )
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                seen = SeenLength(container, stream)
                for frame in _frames_of(container, stream, seen):
                    number += 1
                    time = _seconds(frame, number, stream)
                    start = time if start is None else start
                    if number % self.stride == 0:
                        yield Shot(_pixels_of(frame), number, time - start, is_last=False)
                if number >= 0 and (missing := seen.missing()):
                    raise UnreadableImageError(
                        f"{self.path}: the video breaks off after {missing}; copy it again"
                    )
        except (av.FFmpegError, OSError, UnreadableImageError) as error:
            if isinstance(error, UnreadableImageError):
                told = str(error)
            else:  # without its number, and what FFmpeg has logged
                reason = error.strerror or first_line(error)
                told = f"{self.path}: the video cannot be read on: {reason}; copy it again"
            yield Shot(_raising(UnreadableImageError(told)), number + 1, is_last=False)


def _frames_of(container: Any, stream: av.VideoStream, seen: SeenLength) -> Iterator[av.VideoFrame]:
    for packet in container.demux(seen.streams):
        seen.see(packet)
        if packet.stream.index == stream.index:
            yield from packet.decode()


def _seconds(frame: av.VideoFrame, number: int, stream: av.VideoStream) -> float:
    """When a frame is shown; by its number where the file does not say it."""
    if frame.time is not None:
        return float(frame.time)
    return number / float(stream.average_rate or 25)


def _pixels_of(frame: av.VideoFrame) -> Callable[[], Image]:
    def read() -> Image:
        pixels = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90) % 4  # anticlockwise, as phones hold it
        return np.ascontiguousarray(np.rot90(pixels, turns), dtype=np.uint8)

    return read


def _raising(error: UserError) -> Callable[[], Image]:
    def read() -> Image:
        raise error

    return read


class VideoWriter:
    """Writes pictures as an MP4 file that is there as a whole, or not at all.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        av = import_av()
        self._av = av
        self._files = ExitStack()
        aside = self._files.enter_context(replacing(path))
        self._container = self._files.enter_context(av.open(str(aside), "w", format="mp4"))
        codec = next(name for name in _CODECS if name in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=30)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._size: tuple[int, int] | None = None
        self._last, self._pace = -1, _TICKS // 30

    def add(self, picture: Picture, time: float) -> None:
        """Append a picture.

        Args:
            picture: ``(H, W, 3)`` uint8 RGB; it is brought to the size of the first one.
            time: from when on it is shown, in seconds.
        """
        height, width = picture.shape[:2]
        if self._size is None:  # H.264 takes even sides
            self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
            self._stream.width, self._stream.height = self._size
        if (width, height) != self._size:
            fits = width >= self._size[0] and height >= self._size[1]
            if fits and (width - self._size[0] <= 1 and height - self._size[1] <= 1):
                picture = picture[: self._size[1], : self._size[0]]
            else:
                picture = np.asarray(cv2.resize(picture, self._size), dtype=np.uint8)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        ticks = max(self._last + 1, round(time * _TICKS))
        if self._last >= 0:
            self._pace = ticks - self._last
        frame.pts, frame.time_base = ticks, Fraction(1, _TICKS)
        self._last = ticks
        self._mux(frame)

    def finish(self) -> None:
        """Write the rest, and put the file in its place."""
        self._mux(None)
        self._files.close()

    def abort(self) -> None:
        """Leave no file."""
        error = KeyboardInterrupt()
        self._files.__exit__(type(error), error, None)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._pace
            self._container.mux(packet)
