"""Pictures with what was found drawn into them: a JPEG of an image, a video of a video."""

from __future__ import annotations

from functools import partial

from retina.prediction.drawing import Picture, draw_detections
from retina.prediction.outputs.images import (
    ImageOutput,
    Later,
    Place,
    PredictedImage,
    write_jpeg,
)
from retina.prediction.picture_size import WRITTEN_SIDE, scaled, size_of
from retina.prediction.video import VideoWriter

SMALLEST_PICTURE = 320
"""The shorter side that an annotated picture has at least, in pixels."""


class Pictures(ImageOutput):
    """``NAME.jpg`` of every image, ``NAME.mp4`` of every video, each frame shown as long as in it.

    A small image is enlarged by a whole factor, so that the names can be read, and one longer than
    `WRITTEN_SIDE` is made smaller; frames of a video keep their size.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._videos: dict[int, VideoWriter] = {}

    def write(self, one: PredictedImage) -> Later | None:
        """Draw the picture, and write it; one of a video at its turn."""
        if one.frame is not None:
            picture = draw_detections(*one.shown(), self.place.categories)
            return partial(self._append, one.item, picture, one.time or 0.0)
        write_jpeg(self.place.folder / f"{self.place.stems[one.item]}.jpg", self._drawn(one))
        return None

    def end(self, item: int) -> None:
        """Complete the video of an input, if it is one."""
        if (video := self._videos.pop(item, None)) is not None:
            video.finish()

    def close(self) -> None:
        """Leave no half of a video."""
        for video in self._videos.values():
            video.abort()
        self._videos.clear()

    def _append(self, item: int, picture: Picture, time: float) -> None:
        if item not in self._videos:
            name = f"{self.place.stems[item]}.mp4"
            self._videos[item] = VideoWriter(self.place.folder / name)
        self._videos[item].add(picture, time)

    def _drawn(self, one: PredictedImage) -> Picture:
        image, found = one.shown()
        ground = scaled(image, smallest_side=SMALLEST_PICTURE, longest_side=WRITTEN_SIDE)
        found = found.rescaled(size_of(image), size_of(ground))
        return draw_detections(ground, found, self.place.categories)
