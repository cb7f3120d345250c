"""All that a run has found, image by image, for what is written about all images together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from retina.prediction.outputs.images import Place
from retina.runtime.detection_log import DetectionLog, LoggedImage
from retina.structures import OriginalId


@dataclass(frozen=True, slots=True)
class Results:
    """What a run has found; it lies on disk, and is read image by image.

    Attributes:
        place: where the run writes.
        log: what was found.
        ids: of each input; None counts the images from 1, for inputs of several images.
        has_more: this run has found something, beside what one that was stopped had found before.
    """

    place: Place
    log: DetectionLog
    ids: Sequence[OriginalId] | None
    has_more: bool = True

    def images(self) -> Iterator[tuple[OriginalId, LoggedImage]]:
        """Each image that could be read, under its id, in order."""
        numbers = count(1)
        for one in self.log.images():
            if one.is_read:
                yield (next(numbers) if self.ids is None else self.ids[one.item]), one

    def images_with_files(self) -> Iterator[tuple[OriginalId, LoggedImage]]:
        """Those of which there is an image file: not a frame, say, that could not be written."""
        for image_id, one in self.images():
            if self.place.image_file(one.item, one.frame).is_file():
                yield image_id, one
