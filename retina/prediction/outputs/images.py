"""What is written about one image at a time, and the image files of what is no file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from retina.datasets.large_tiff import LargeTiff
from retina.geometry.tiles import Window
from retina.prediction.drawing import Picture
from retina.prediction.inputs import Input
from retina.prediction.picture_size import size_of
from retina.storage import replacing
from retina.structures import Categories, Detections, Size

Later = Callable[[], None]
"""What is left to be done once it is the image's turn."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run writes, and what about.

    Attributes:
        folder: the run's.
        work: a folder within, which is gone when the run has ended.
        inputs: all, of all processes.
        stems: of each, what its files are called.
        categories: the classes.
    """

    folder: Path
    work: Path
    inputs: Sequence[Input]
    stems: Sequence[str]
    categories: Categories

    def image_file(self, item: int, frame: int | None) -> Path:
        """The image file of an input, or of one frame of it: its own, or that of `ImageFiles`."""
        name = f"{frame_name(self.stems[item], frame)}.jpg"
        return self.inputs[item].file or self.work / "images" / name


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """An image, and what was found in it.

    Attributes:
        item: the number of its input.
        image: ``(H, W, 3)`` uint8 RGB, or a file that is too large to be in memory.
        found: in pixels of the image.
        frame: its number in its video; None for an image.
        time: of the frame, in seconds.
    """

    item: int
    image: Picture | LargeTiff
    found: Detections
    frame: int | None = None
    time: float | None = None

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        return self.image.size if isinstance(self.image, LargeTiff) else size_of(self.image)

    def shown(self) -> tuple[Picture, Detections]:
        """An image to draw on, and what was found in pixels of that: of a large file an overview.

        Raises:
            UnreadableImageError: the file is broken.
        """
        if not isinstance(self.image, LargeTiff):
            return self.image, self.found
        boxes = self.found.boxes / self.image.reduction
        return self.image.overview, replace(self.found, boxes=boxes)

    def cut_out(self, window: Window) -> Picture:
        """The pixels of a window within the image; errors as in `shown`."""
        if isinstance(self.image, LargeTiff):
            return self.image.read(window)
        return self.image[window.y1 : window.y2, window.x1 : window.x2]


class ImageOutput(ABC):
    """One kind of file about every image.

    Args:
        place: where to.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def write(self, one: PredictedImage) -> Later | None:
        """Write what there is to write about an image; called in several threads.

        Returns:
            What must be done in the order of the images, else None; called in one thread.
        """

    def end(self, item: int) -> None:  # noqa: B027 - most have nothing to do
        """All images of an input were written; called in their order."""

    def close(self) -> None:  # noqa: B027
        """The run has ended or broken off."""


class ImageFiles(ImageOutput):
    """The images themselves, of what is no image file: for data sets, which are made of files."""

    def write(self, one: PredictedImage) -> None:
        """Write the image, unless its input is a file."""
        if not isinstance(one.image, LargeTiff) and self.place.inputs[one.item].file is None:
            write_jpeg(self.place.image_file(one.item, one.frame), one.image, quality=95)


def frame_name(stem: str, frame: int | None) -> str:
    """``street_000012`` for a frame of a video, else the stem itself."""
    return stem if frame is None else f"{stem}_{frame:06d}"


def write_jpeg(path: Path, picture: Picture, *, quality: int = 92) -> None:
    """Write ``(H, W, 3)`` uint8 RGB, in one step; errors as in `replacing`."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), options)
    assert encoded
    with replacing(path) as aside:
        aside.write_bytes(content.tobytes())
