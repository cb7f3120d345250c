"""What the service answers with: the JSON of its API, and drawn pictures."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from retina.modeling.preprocess import size_of
from retina.prediction.drawing import draw_detections
from retina.prediction.outputs.pictures import SMALLEST_PICTURE
from retina.prediction.palette import color_of
from retina.prediction.picture_size import WRITTEN_SIDE, scaled
from retina.prediction.picture_size import size_of as size_of_picture
from retina.runtime import Runtime
from retina.serving.decoding import FORMAT_NAMES
from retina.serving.limits import Limits
from retina.structures import Categories, Detections, OriginalId

PictureFormat = Literal["jpeg", "png"]

HealthStatus = Literal["alive", "broken", "ready", "stopping"]

_JPEG_QUALITY = 92


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureSize(_Answer):
    """Of the picture as it was sent, its EXIF orientation applied."""

    width: int
    height: int


class DetectionRow(_Answer):
    """A detection as COCO's results format has it, with the name of its class."""

    image_id: int
    category_id: OriginalId
    category_name: str
    bbox: Annotated[
        tuple[float, float, float, float],
        Field(description="x, y, width and height in pixels of the picture as it was sent."),
    ]
    score: Annotated[float, Field(ge=0, le=1)]


class DetectAnswer(_Answer):
    """What was found, highest score first."""

    detections: list[DetectionRow]
    size: PictureSize


class CategoryAnswer(_Answer):
    """A class of the detector."""

    id: OriginalId
    name: str
    threshold: Annotated[
        float, Field(description="The score from which on its detections are worth showing.")
    ]
    color: Annotated[str, Field(description="In drawn pictures, as #rrggbb.")]


class LimitsAnswer(_Answer):
    """What a request may ask of the service."""

    max_bytes: int
    max_pixels: int
    max_detections: int
    timeout_seconds: float


class ModelAnswer(_Answer):
    """The detector that is served."""

    name: str
    version: Annotated[str, Field(description="Of Retina.")]
    categories: list[CategoryAnswer]
    formats: Annotated[list[str], Field(description="Of pictures that are taken.")]
    limits: LimitsAnswer


class HealthAnswer(_Answer):
    """How the service is."""

    status: HealthStatus


class Problem(_Answer):
    """Why there is no answer."""

    detail: str


def detect_answer(
    found: Detections, categories: Categories, image: Tensor, image_id: int
) -> DetectAnswer:
    """Detections as JSON; the numbers are those that ``retina predict`` writes.

    Args:
        found: in pixels of the image.
        categories: give ids and names.
        image: ``(3, H, W)``.
        image_id: stands in each row.
    """
    height, width = size_of(image)
    boxes = found.boxes.double().tolist()
    rows = zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
    detections = [
        DetectionRow(
            image_id=image_id,
            category_id=categories.original_id(label),
            category_name=categories.names[label],
            bbox=(x1, y1, x2 - x1, y2 - y1),
            score=score,
        )
        for (x1, y1, x2, y2), score, label in rows
    ]
    return DetectAnswer(detections=detections, size=PictureSize(width=width, height=height))


def model_answer(runtime: Runtime, name: str, version: str, limits: Limits) -> ModelAnswer:
    """The detector for who asks."""
    categories = runtime.categories
    return ModelAnswer(
        name=name,
        version=version,
        categories=[
            CategoryAnswer(
                id=categories.original_id(label),
                name=categories.names[label],
                threshold=float(runtime.thresholds[label]),
                color="#{:02x}{:02x}{:02x}".format(*color_of(label)),
            )
            for label in range(len(categories))
        ],
        formats=list(FORMAT_NAMES),
        limits=LimitsAnswer(
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            max_detections=limits.max_detections,
            timeout_seconds=limits.timeout,
        ),
    )


def drawn_picture(
    found: Detections, categories: Categories, image: Tensor, file_format: PictureFormat
) -> bytes:
    """The picture with its detections, of the size that ``retina predict`` gives it.

    Args:
        found: in pixels of the image.
        categories: give the names.
        image: ``(3, H, W)`` uint8 RGB.
        file_format: what the bytes are.
    """
    pixels = image.permute(1, 2, 0).numpy()
    ground = scaled(pixels, smallest_side=SMALLEST_PICTURE, longest_side=WRITTEN_SIDE)
    found = found.rescaled(size_of_picture(pixels), size_of_picture(ground))
    picture = draw_detections(ground, found, categories)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if file_format == "jpeg" else []
    encoded, content = cv2.imencode(f".{file_format}", picture[:, :, ::-1], options)
    assert encoded
    return content.tobytes()
