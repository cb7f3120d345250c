"""Every object cut out, in a folder of its class."""

from __future__ import annotations

import math
import re

from retina.geometry.tiles import Window
from retina.prediction.outputs.images import ImageOutput, PredictedImage, frame_name, write_jpeg


class Crops(ImageOutput):
    """``crops/CLASS/NAME_1.jpg`` for the object of the highest score, ``_2`` for the next.

    All pixels that a box touches are cut out.
    """

    def write(self, one: PredictedImage) -> None:
        """Write the objects of an image."""
        height, width = one.size
        stem = frame_name(self.place.stems[one.item], one.frame)
        rows = zip(one.found.boxes.tolist(), one.found.labels.tolist(), strict=True)
        for number, ((x1, y1, x2, y2), label) in enumerate(rows, start=1):
            left, top = min(max(0, int(x1)), width - 1), min(max(0, int(y1)), height - 1)
            right = min(max(left + 1, math.ceil(x2)), width)
            bottom = min(max(top + 1, math.ceil(y2)), height)
            folder = self.place.folder / "crops" / _folder_name(self.place.categories.names[label])
            crop = one.cut_out(Window(left, top, right, bottom))
            write_jpeg(folder / f"{stem}_{number}.jpg", crop, quality=95)


def _folder_name(class_name: str) -> str:
    """A class's name as any system takes one of a folder."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", class_name).strip(" .")[:100] or "_"
