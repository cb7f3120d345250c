"""A report as files: ``report.json`` with all numbers, ``report.html`` with pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from retina.datasets.dataset import DetectionDataset
from retina.datasets.images import decode_image
from retina.errors import UserError
from retina.evaluation.report.content import Report
from retina.evaluation.report.gallery import LARGE_IMAGES
from retina.evaluation.report.json_form import write_report_json
from retina.evaluation.report.page import Picture, html_page
from retina.storage import write_text

ImageReader = Callable[[int], npt.NDArray[np.uint8] | None]
"""The pixels ``(h, w, 3)`` of an image, red first, by its id in the ground truth; None where it
cannot be read."""

REPORT = "report.html"
REPORT_JSON = "report.json"

_LONGEST_SIDE = 640
_SMALL_SIDE = 320
_QUALITY = 82


def write_report(folder: Path, report: Report, read_image: ImageReader) -> None:
    """Write ``report.json`` and ``report.html``.

    Args:
        folder: of the evaluation.
        report: its content.
        read_image: gives the images that the page shows.

    Raises:
        UserError: a file may not be written.
        RunError: the disk is full.
    """
    content = report.to_json()
    write_report_json(folder / REPORT_JSON, content)
    pictures = {}
    for place, shown in enumerate(report.gallery.images):
        longest = _LONGEST_SIDE if place < LARGE_IMAGES else _SMALL_SIDE
        picture = _picture(read_image(int(shown.picture)), longest)
        if picture is not None:
            pictures[shown.picture] = picture
    write_text(folder / REPORT, html_page(content, pictures))


def images_of(dataset: DetectionDataset) -> ImageReader:
    """Reads the images of a data set, without any change."""
    row_of = {id_: row for row, id_ in enumerate(dataset.ground_truth().image_ids.tolist())}

    def read(image_id: int) -> npt.NDArray[np.uint8] | None:
        try:
            return dataset.load(row_of[image_id]).image
        except UserError:  # of thousands that were scored one may be gone by now
            return None

    return read


def images_at(paths: Mapping[int, Path]) -> ImageReader:
    """Reads image files, by the image's id; there are none for images without a path."""

    def read(image_id: int) -> npt.NDArray[np.uint8] | None:
        path = paths.get(image_id)
        if path is None:
            return None
        try:
            return decode_image(path)
        except (UserError, OSError):
            return None

    return read


def _picture(image: npt.NDArray[np.uint8] | None, longest: int) -> Picture | None:
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    stream = io.BytesIO()
    Image.fromarray(small).save(stream, "JPEG", quality=_QUALITY)
    return Picture(stream.getvalue(), *size)
