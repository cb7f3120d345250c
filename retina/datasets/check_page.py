"""What checking a data set found, as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
import PIL.Image
from PIL import ImageDraw

from retina.datasets.checking import CheckFinding, DatasetCheck
from retina.datasets.dataset import DetectionDataset, Image
from retina.datasets.images import decode_image
from retina.datasets.repair import ordered_corners
from retina.datasets.repeats import Repeat
from retina.errors import UserError
from retina.structures import FloatArray

MOST_PICTURES = 24
"""Shown of one finding; the page says how many there are."""

_MOST_REPEATS = 60
_SIDE = 320
_MARGIN = 24
_BOX_COLOR = (255, 196, 0)
_JPEG_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the page.

    Attributes:
        url: a data URL; empty where the image cannot be shown.
        caption: below it.
    """

    url: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """One finding of the page.

    Attributes:
        text: a sentence.
        rows: of pictures; those of a row belong together.
        left_out: how many pictures or rows there are beyond them.
        level: how bad it is: ``error``, ``warning`` or ``note``.
    """

    text: str
    rows: Sequence[Sequence[Picture]] = field(default=())
    left_out: int = 0
    level: str = "note"


def html_page(title: str, conclusion: str, parts: Mapping[str, Sequence[Section]]) -> str:
    """The page.

    Args:
        title: what was checked.
        conclusion: the last line of the command.
        parts: the findings, by what they are about.

    Returns:
        HTML that loads nothing, with every name escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.datasets"), autoescape=True, keep_trailing_newline=True
    )
    template = environment.get_template("check.html")
    return template.render(title=title, conclusion=conclusion, parts=parts)


def sections_of(dataset: DetectionDataset, check: DatasetCheck) -> Iterator[Section]:
    """The findings of a split: images that cannot be used first."""
    broken = list(check.broken_images.items())
    if broken:
        pictures = [Picture(_broken_url(dataset, i), text) for i, text in broken[:MOST_PICTURES]]
        yield Section(
            f"{len(broken)} images cannot be used",
            [[picture] for picture in pictures],
            max(0, len(broken) - MOST_PICTURES),
            "error",
        )
    for finding in check.findings:
        yield section_of(dataset, finding)


def section_of(dataset: DetectionDataset, finding: CheckFinding, *, level: str = "note") -> Section:
    """A finding with its pictures: its boxes, or else its images with all of their boxes."""
    truth = dataset.ground_truth()
    rows_of: dict[int, list[int]] = defaultdict(list)
    indices = truth.image_indices
    for row in finding.annotations:
        rows_of[int(indices[row])].append(row)
    for image in finding.images:
        rows_of[image] += np.flatnonzero(indices == image).tolist()
    corners = ordered_corners(truth.boxes_xywh)
    names = truth.categories.distinct_names
    pictures = []
    for image, rows in list(rows_of.items())[:MOST_PICTURES]:
        labels = [names[label] for label in truth.category_labels[rows].tolist()]
        shown = ", ".join(
            f"{name} {_numbers(box)}"
            for name, box in zip(labels[:3], truth.boxes_xywh[rows[:3]], strict=False)
        )
        caption = f"{Path(dataset.file_path(image)).name}: {shown}{' …' if len(rows) > 3 else ''}"
        pictures.append([Picture(_url(dataset, image, corners[rows]), caption)])
    return Section(finding.text, pictures, max(0, len(rows_of) - MOST_PICTURES), level)


def section_of_repeats(
    text: str, repeats: Sequence[Repeat], datasets: Mapping[str, DetectionDataset]
) -> Section:
    """Repeated images side by side."""
    rows = []
    for repeat in repeats[:_MOST_REPEATS]:
        row = []
        for split, index in repeat.members[:8]:
            path = datasets[split].file_path(index)
            no_boxes = np.zeros((0, 4))
            caption = f"{split and split + ': '}{Path(path).name}"
            row.append(Picture(_url(datasets[split], index, no_boxes), caption))
        rows.append(row)
    is_leak = any(len(repeat.splits) > 1 for repeat in repeats)
    left_out = max(0, len(repeats) - _MOST_REPEATS)
    return Section(text, rows, left_out, "warning" if is_leak else "note")


def _numbers(values: FloatArray) -> str:
    return f"[{', '.join(f'{value:.5g}' for value in values)}]"


def _url(dataset: DetectionDataset, index: int, corners: FloatArray) -> str:
    try:
        return _picture(dataset.load(index).image, corners)
    except UserError:
        return ""


def _broken_url(dataset: DetectionDataset, index: int) -> str:
    """An image that may only be of another size than annotated, without boxes."""
    try:
        return _picture(decode_image(Path(dataset.file_path(index))), np.zeros((0, 4)))
    except UserError:
        return ""


def _picture(image: Image, corners: FloatArray) -> str:
    """The image, shrunk, with boxes ``(N, 4)``, on a margin that shows what lies outside of it."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BOX)
    margin = _MARGIN if len(corners) else 0
    canvas = PIL.Image.new("RGB", (width + 2 * margin, height + 2 * margin), (60, 60, 60))
    canvas.paste(small, (margin, margin))
    draw = ImageDraw.Draw(canvas)
    limits = np.array([canvas.width - 2, canvas.height - 2] * 2)
    for box in np.clip(np.rint(corners * scale + margin), 1, limits).tolist():
        x1, y1, x2, y2 = box
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0), width=4)
        draw.rectangle((x1, y1, x2, y2), outline=_BOX_COLOR, width=2)
    content = io.BytesIO()
    canvas.save(content, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
