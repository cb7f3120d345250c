"""Pictures of what was found and of what is annotated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw, ImageFont

from retina.prediction.palette import Color, color_of, text_color_on
from retina.structures import Categories, Detections, Size, Targets

Picture = npt.NDArray[np.uint8]
"""``(H, W, 3)`` uint8 RGB."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom pixel, all of them inside."""

_HALO = (0, 0, 0, 130)

_MOST_HIDDEN = 0.4
"""The share of a tag's area that may lie on other tags."""

_MOST_COVERED = 0.35
"""The share of the picture that all tags together may cover."""


def draw_detections(image: Picture, detections: Detections, categories: Categories) -> Picture:
    """The image with a box, a name and a score for every detection.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; it is not changed.
        detections: in pixels of the image; a better one lies over a worse one.
        categories: give the names.

    Returns:
        A new picture of the same size.
    """
    shown = detections.cpu()
    canvas = _Canvas.on(image, len(shown))
    order = shown.scores.argsort(stable=True).tolist()  # ascending
    boxes, labels, scores = shown.boxes.tolist(), shown.labels.tolist(), shown.scores.tolist()
    for row in order:
        canvas.box(boxes[row], color_of(labels[row]))
    for row in reversed(order):
        text = f"{categories.names[labels[row]]} {scores[row]:.2f}"
        canvas.place_tag(boxes[row], text, color_of(labels[row]))
    return canvas.finish()


def draw_targets(image: Picture, targets: Targets, categories: Categories) -> Picture:
    """The image with a box and a name for every annotated object.

    A crowd region is dashed and hatched. The largest boxes are drawn first.

    Returns:
        A new picture of the same size.
    """
    canvas = _Canvas.on(image, len(targets))
    boxes, labels = targets.boxes.cpu(), targets.labels.tolist()
    is_crowd = targets.is_crowd.tolist()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rows = boxes.tolist()
    order = areas.argsort(descending=True, stable=True).tolist()
    for row in order:
        if is_crowd[row]:
            canvas.hatched_box(rows[row], color_of(labels[row]))
        else:
            canvas.box(rows[row], color_of(labels[row]))
    for row in reversed(order):
        text = categories.names[labels[row]] + (" (crowd)" if is_crowd[row] else "")
        canvas.place_tag(rows[row], text, color_of(labels[row]))
    return canvas.finish()


@dataclass(slots=True)
class _Canvas:
    """A picture being drawn on; boxes are drawn at once, tags at the end, over all boxes."""

    picture: PIL.Image.Image
    draw: ImageDraw.ImageDraw
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    line_width: int
    tags: list[tuple[Rectangle, str, Color]] = field(default_factory=list)

    @classmethod
    def on(cls, image: Picture, num_boxes: int) -> _Canvas:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"a picture must be (H, W, 3) uint8 RGB, is {image.shape} {image.dtype}"
            )
        picture = PIL.Image.fromarray(np.ascontiguousarray(image))
        size = font_size((image.shape[0], image.shape[1]), num_boxes)
        return cls(
            picture=picture,
            draw=ImageDraw.Draw(picture, "RGBA"),
            font=ImageFont.load_default(size=size),
            line_width=max(1, round(size / 7)),
        )

    def box(self, box: Sequence[float], color: Color) -> None:
        left, top, right, bottom = self._pixels(box)
        if self.line_width > 1:  # a dark rim, so that the line shows on its own colour
            rim = (left - 1, top - 1, right + 1, bottom + 1)
            self.draw.rectangle(rim, outline=_HALO, width=self.line_width + 2)
        self.draw.rectangle(
            (left, top, right, bottom), outline=(*color, 255), width=self.line_width
        )

    def dashed_box(self, box: Sequence[float], color: Color) -> None:
        left, top, right, bottom = self._pixels(box)
        dash = 4 * self.line_width
        for lines in (
            [
                ((x, y), (min(x + dash, right), y))
                for y in (top, bottom)
                for x in range(left, right + 1, 2 * dash)
            ],
            [
                ((x, y), (x, min(y + dash, bottom)))
                for x in (left, right)
                for y in range(top, bottom + 1, 2 * dash)
            ],
        ):
            for line in lines:
                self.draw.line(line, fill=_HALO, width=self.line_width + 2)
                self.draw.line(line, fill=(*color, 255), width=self.line_width)

    def hatched_box(self, box: Sequence[float], color: Color) -> None:
        left, top, right, bottom = self._pixels(box)
        for diagonal in range(left + top, right + bottom, 8 * self.line_width):
            above, below = min(diagonal - top, right), max(diagonal - bottom, left)
            line = ((above, diagonal - above), (below, diagonal - below))
            self.draw.line(line, fill=(*color, 110), width=max(1, self.line_width // 2))
        self.dashed_box(box, color)

    def place_tag(self, box: Sequence[float], text: str, color: Color) -> None:
        """Find the place for a box's name where it hides the least of the names before it.

        A name that would hide too much of them, or of the whole picture, is left out; the colour of
        its box still shows its class.
        """
        width, height = self.picture.size
        text = self._shortened(text, width - 2 * self._padding)
        left, top, right, bottom = self._pixels(box)
        ascent, descent = self._metrics()
        tag_width = round(self.font.getlength(text)) + 2 * self._padding
        tag_height = ascent + descent + 2
        corners = [
            (x, y)
            for x in (left, right - tag_width + 1)
            for y in (top - tag_height, top, bottom + 1, bottom - tag_height + 1)
        ]
        places = [
            (max(0, min(x, width - tag_width)), max(0, min(y, height - tag_height)))
            for x, y in corners
        ]
        taken = np.array([tag[0] for tag in self.tags]).reshape(-1, 4)

        def hidden(place: tuple[int, int]) -> int:
            x, y = place
            across = np.minimum(taken[:, 2], x + tag_width) - np.maximum(taken[:, 0], x)
            down = np.minimum(taken[:, 3], y + tag_height) - np.maximum(taken[:, 1], y)
            return int(np.sum(across.clip(min=0) * down.clip(min=0)))

        x, y = min(places, key=hidden)  # the first of the best: above the box if possible
        area = tag_width * tag_height
        covered = sum((tag[2] - tag[0]) * (tag[3] - tag[1]) for tag, _, _ in self.tags)
        if self.tags and (
            hidden((x, y)) > _MOST_HIDDEN * area or covered + area > _MOST_COVERED * width * height
        ):
            return
        self.tags.append(((x, y, x + tag_width, y + tag_height), text, color))

    def finish(self) -> Picture:
        """Draw the tags, the first placed on top."""
        for (left, top, right, bottom), text, color in reversed(self.tags):
            self.draw.rectangle((left, top, right - 1, bottom - 1), fill=(*color, 215))
            self.draw.text(
                (left + self._padding, top + 1), text, fill=text_color_on(color), font=self.font
            )
        return np.array(self.picture)

    @property
    def _padding(self) -> int:
        return max(2, self.line_width)

    def _metrics(self) -> tuple[int, int]:
        if isinstance(self.font, ImageFont.FreeTypeFont):
            return self.font.getmetrics()
        return 11, 0  # Pillow built without FreeType has one bitmap font

    def _shortened(self, text: str, width: int) -> str:
        if self.font.getlength(text) <= width:
            return text
        while text and self.font.getlength(text + "…") > width:
            text = text[:-1]
        return text + "…"

    def _pixels(self, box: Sequence[float]) -> Rectangle:
        """The pixels of a box, inside the picture, at least one."""
        width, height = self.picture.size
        left, top = (
            max(0, min(round(value), size - 1))
            for value, size in zip(box[:2], (width, height), strict=True)
        )
        right, bottom = (
            max(low, min(round(value) - 1, size - 1))
            for value, size, low in zip(box[2:], (width, height), (left, top), strict=True)
        )
        return left, top, right, bottom


def font_size(size: Size, num_boxes: int) -> int:
    """Pixels of text that can be read when a picture is shown whole on a screen.

    14 on 640 × 480, 61 on 4000 × 3000, at least 9; a little less where boxes crowd.
    """
    side = math.sqrt(size[0] * size[1])
    crowding = min(1.0, max(0.7, math.sqrt(30 / max(1, num_boxes))))
    return max(9, round(14 * math.pow(side / 554, 0.8) * crowding))
