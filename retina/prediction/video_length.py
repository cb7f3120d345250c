"""Whether a video has come to its end, or its file breaks off: FFmpeg reports neither."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

_WITH_LENGTH = ("matroska", "mov", "avi", "flv")
"""Formats whose head says how long a video is. Of others FFmpeg takes the length from what is
there, or guesses it from the number of bytes."""

_LEAST_SECONDS, _LEAST_PART = 0.5, 0.02
"""What must be missing, in seconds and of the whole, so that rounding accuses no video."""


class SeenLength:
    """How much of a video has been read, beside how much its head promises.

    A frame may be shown for long and the file not say so: twice the longest that one has been shown
    may be missing, and of a single frame everything.

    Args:
        container: the open file.
        stream: the video in it.

    Attributes:
        streams: whose packets are to be shown to `see`: the video alone where its own length is
            known, else all, since sound may be longer than the video.
    """

    def __init__(self, container: Any, stream: av.VideoStream) -> None:
        self._index = stream.index
        whole = container.duration / 1_000_000 if container.duration else None
        own, self._start = _own_length(container, stream)
        self._promised = min((one for one in (own, whole) if one is not None), default=None)
        if not container.format.name.startswith(_WITH_LENGTH):
            self._promised = None
        elif container.format.name == "avi":  # the whole is guessed from the size of the file
            self._promised = own
        self.streams: Sequence[Any] = [stream]
        if own is None and self._promised is not None:
            self.streams = list(container.streams)
        self._end = self._gap = 0.0
        self._num_packets, self._last = 0, 0.0

    def see(self, packet: av.Packet[Any]) -> None:
        """Take a packet in, of any of the streams."""
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.time_base is None:
            return
        end = (time + (packet.duration or 0)) * packet.time_base
        self._end = max(self._end, float(end) - self._start)
        if packet.stream.index == self._index and packet.dts is not None:
            decoded_at = float(packet.dts * packet.time_base)
            if self._num_packets:
                self._gap = max(self._gap, decoded_at - self._last)
            self._last = decoded_at
            self._num_packets += 1

    def missing(self) -> str:
        """``1.9 of 4.0 seconds`` of a video that breaks off; empty of one that is whole."""
        if self._promised is None or self._num_packets < 2:
            return ""
        bearable = max(_LEAST_SECONDS, _LEAST_PART * self._promised, 2 * self._gap)
        if self._promised - self._end <= bearable:
            return ""
        return f"{self._end:.1f} of {self._promised:.1f} seconds"


def _own_length(container: Any, stream: av.VideoStream) -> tuple[float | None, float]:
    """The length of the video by itself, where it is known, and from when on it counts."""
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    if container.format.name == "avi":
        rate = stream.average_rate
        return (float(stream.frames / rate) if stream.frames and rate else None), start
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), start
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip())
    if tag is None:
        return None, 0.0
    hours, minutes, seconds = map(float, tag.groups())
    return (3600 * hours + 60 * minutes + seconds) or None, 0.0  # Matroska: from 0 to the last end
