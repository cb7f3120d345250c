"""What is predicted on: image files, URLs, videos; each gives one image or many, one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retina.datasets.dataset import Image
from retina.datasets.images import decode_image

MOST_STEM_BYTES = 255 - len("_0000000_100000.jpg")
"""Of a stem, so that the files of every frame, and of every object in it, have names that a disk
takes: 255 bytes at most."""


@dataclass(frozen=True, slots=True)
class Shot:
    """An image that is not decoded yet.

    Attributes:
        read: decodes it, ``(H, W, 3)`` uint8 RGB; raises a UserError where it cannot be read.
        frame: its number in its video, from 0; None for an image.
        time: of the frame, in seconds from the start of the video.
        is_last: no other one comes of its input.
        file: where it lies, for who can read parts of it; None for what is no file.
    """

    read: Callable[[], Image]
    frame: int | None = None
    time: float | None = None
    is_last: bool = True
    file: Path | None = None


class Input(ABC):
    """One thing that is predicted on."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What results and messages call it."""

    @property
    @abstractmethod
    def stem(self) -> str:
        """What the files that are written about it are called, without a suffix."""

    @property
    def identity(self) -> str:
        """What tells it from any other, wherever the program is started."""
        return self.name if self.file is None else str(self.file.absolute())

    @property
    def file(self) -> Path | None:
        """The image file that it is, else None."""
        return None

    @property
    def source(self) -> Path | None:
        """The file that it is read from, which nothing may be written over."""
        return self.file

    @abstractmethod
    def shots(self) -> Iterator[Shot]:
        """Its images, in their order, at least one."""


@dataclass(frozen=True, slots=True)
class ImageFile(Input):
    """An image file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def stem(self) -> str:
        """Of its name."""
        return self.path.stem

    @property
    def file(self) -> Path:
        """Its path."""
        return self.path

    def shots(self) -> Iterator[Shot]:
        """The one image."""
        yield Shot(lambda: decode_image(self.path), file=self.path)


def free_stems(inputs: Sequence[Input]) -> list[str]:
    """A name for the files that are written about each input; equal ones get a number.

    None has more than `MOST_STEM_BYTES`; what is longer is cut.
    """
    taken: set[str] = set()
    stems = []
    for one in inputs:
        stem, number = _cut(one.stem), 1
        while stem in taken:
            number += 1
            stem = _cut(one.stem, f"_{number}")
        taken.add(stem)
        stems.append(stem)
    return stems


def _cut(stem: str, end: str = "") -> str:
    """As much of a stem as there is room for before an end, in whole characters."""
    stem = stem[:MOST_STEM_BYTES]  # a URL's may be very long
    while len((stem + end).encode(errors="surrogatepass")) > MOST_STEM_BYTES:
        stem = stem[:-1]
    return stem + end
