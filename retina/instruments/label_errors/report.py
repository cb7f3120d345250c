"""Label errors for people and programs: one HTML page that needs nothing else, and JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import PIL.Image
from PIL import ImageDraw

from retina.datasets.dataset import DetectionDataset, Image
from retina.instruments.label_errors.ranking import KINDS, Corners, LabelError

FORMAT_VERSION = 1
"""Of ``suspects.json``: see docs/file-formats.md."""

CROP_HEIGHT = 220
"""In pixels; crops are shrunk or enlarged to it."""

_WIDEST_CROP = 420
_CONTEXT = 0.6
_LEAST_CONTEXT = 24.0
_JPEG_QUALITY = 82
_LABEL_COLOR = (255, 255, 255)
_SEEN_COLOR = (255, 196, 0)

_MEANINGS = {
    "missing": "an object is seen where no box is",
    "wrong_class": "the box is seen as another class",
    "badly_placed": "the object is seen beside its box",
    "spurious": "no object is seen in the box",
}


@dataclass(frozen=True, slots=True)
class Card:
    """What the page shows of one label error.

    Attributes:
        kind: of `KINDS`.
        score: how much it looks like this error.
        image: the name of the image file.
        crop: the place with its boxes, as a data URL.
        labelled: the class of the label; None where one is missing.
        seen_as: what the detector sees; None where that says nothing.
        annotation_id: as in the annotation file; None where a label is missing.
    """

    kind: str
    score: float
    image: str
    crop: str
    labelled: str | None
    seen_as: str | None
    annotation_id: int | None


def html_page(
    errors: Sequence[LabelError], dataset: DetectionDataset, *, num_found: int | None = None
) -> str:
    """The page ``suspects.html``.

    Args:
        errors: to show, best first.
        dataset: theirs; each image is decoded once.
        num_found: how many there are in all, where not all are shown.

    Returns:
        HTML that loads nothing, with every name escaped.

    Raises:
        UserError: an image cannot be read.
    """
    cards: dict[int, Card] = {}
    index, image = -1, np.zeros((0, 0, 3), dtype=np.uint8)
    for row in sorted(range(len(errors)), key=lambda row: errors[row].image_index):
        if errors[row].image_index != index:
            index = errors[row].image_index
            image = dataset.load(index).image
        cards[row] = _card(errors[row], dataset, image)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.instruments.label_errors"),
        autoescape=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("suspects.html").render(
        cards=[cards[row] for row in range(len(errors))],
        meanings=_MEANINGS,
        num_found=len(errors) if num_found is None else num_found,
        num_images=len(dataset),
    )


def _card(error: LabelError, dataset: DetectionDataset, image: Image) -> Card:
    truth, names = dataset.ground_truth(), dataset.categories.distinct_names
    label_box, seen_box, labelled, seen_as, annotation_id = None, None, None, None, None
    if error.annotation is not None:
        x, y, width, height = truth.boxes_xywh[error.annotation].tolist()
        label_box = (x, y, x + width, y + height)
        labelled = names[int(truth.category_labels[error.annotation])]
        annotation_id = int(truth.annotation_ids[error.annotation])
    if error.suggestion is not None:
        seen_as = f"{names[error.suggestion.label]} {error.suggestion.score:.2f}"
        if error.kind != "wrong_class":  # it would hide the label's box
            seen_box = error.suggestion.box
    elif error.kind == "spurious":
        seen_as = "nothing"
    return Card(
        kind=error.kind,
        score=error.score,
        image=Path(dataset.file_path(error.image_index)).name,
        crop=_crop(image, label_box, seen_box),
        labelled=labelled,
        seen_as=seen_as,
        annotation_id=annotation_id,
    )


def _crop(image: Image, label_box: Corners | None, seen_box: Corners | None) -> str:
    """The place with its boxes as a data URL: the label dashed in white, what is seen in yellow."""
    boxes = np.array([box for box in (label_box, seen_box) if box is not None])
    height, width = image.shape[:2]
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = np.maximum(_CONTEXT * (high - low), _LEAST_CONTEXT)
    left, top = np.maximum(low - margin, 0).astype(int).tolist()
    right, bottom = np.minimum(high + margin + 1, (width, height)).astype(int).tolist()
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = PIL.Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = min(CROP_HEIGHT / part.height, _WIDEST_CROP / part.width)
    size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
    part = part.resize(size, PIL.Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(part)
    for box, color, dash in ((seen_box, _SEEN_COLOR, 0), (label_box, _LABEL_COLOR, 6)):
        if box is not None:
            x1, y1, x2, y2 = box
            inside = (
                (x1 - left) * scale,
                (y1 - top) * scale,
                (x2 - left) * scale,
                (y2 - top) * scale,
            )
            _rectangle(draw, inside, size, color, dash)
    content = io.BytesIO()
    part.save(content, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _rectangle(
    draw: ImageDraw.ImageDraw,
    box: Corners,
    size: tuple[int, int],
    color: tuple[int, int, int],
    dash: int,
) -> None:
    """A rectangle of two pixels on a dark one of four; dashed if ``dash`` is not zero."""
    x1, x2 = (round(min(max(x, 2), size[0] - 3)) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(y, 2), size[1] - 3)) for y in (box[1], box[3]))
    sides = [((x1, y1), (x2, y1)), ((x1, y2), (x2, y2)), ((x1, y1), (x1, y2)), ((x2, y1), (x2, y2))]
    for start, end in sides:
        draw.line((start, end), fill=(0, 0, 0), width=4)
    for (ax, ay), (bx, by) in sides:
        length = max(bx - ax, by - ay)
        step = dash or max(1, length)
        for at in range(0, max(1, length), 2 * step):
            stop = min(at + step, length)
            first = (ax + at, ay) if ay == by else (ax, ay + at)
            last = (ax + stop, ay) if ay == by else (ax, ay + stop)
            draw.line((first, last), fill=color, width=2)


def json_text(
    errors: Sequence[LabelError],
    dataset: DetectionDataset,
    *,
    images: Path,
    detectors: Sequence[str],
    source: str,
    minimum_score: float,
) -> str:
    """The content of ``suspects.json``.

    Args:
        errors: the highest score first.
        dataset: theirs.
        images: the folder that the file names are relative to.
        detectors: the files, or names, of those whose outputs were averaged.
        source: where the labels come from, in words.
        minimum_score: what was left out had less.
    """
    document = {
        "format_version": FORMAT_VERSION,
        "checkpoints": list(detectors),
        "source": source,
        "num_images": len(dataset),
        "num_labels": dataset.report.num_boxes,
        "minimum_score": minimum_score,
        "suspects": json_records(errors, dataset, images=images),
    }
    return json.dumps(document, indent=1)


def json_records(
    errors: Sequence[LabelError], dataset: DetectionDataset, *, images: Path
) -> list[dict[str, object]]:
    """The list of ``suspects.json``: original ids, and boxes as COCO writes them.

    Args:
        errors: the highest score first.
        dataset: theirs.
        images: the folder that the file names are relative to.
    """
    truth, categories = dataset.ground_truth(), dataset.categories
    folder = images.absolute()
    ranks = dict.fromkeys(KINDS, 0)

    def category(label: int) -> dict[str, object]:
        return {"category_id": categories.original_id(label), "category": categories.names[label]}

    records: list[dict[str, object]] = []
    for one in errors:
        ranks[one.kind] += 1
        image_id = int(dataset.image_ids[one.image_index])
        path = Path(dataset.file_path(one.image_index)).absolute()
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        record: dict[str, object] = {
            "kind": one.kind,
            "score": round(one.score, 6),
            "rank_in_kind": ranks[one.kind],
            "image_id": truth.original_image_ids.get(image_id, image_id),
            "file_name": name.as_posix(),
            "annotation_id": None,
            "label": None,
            "suggestion": None,
        }
        if one.annotation is not None:
            record["annotation_id"] = int(truth.annotation_ids[one.annotation])
            record["label"] = {
                "bbox": truth.boxes_xywh[one.annotation].tolist(),
                **category(int(truth.category_labels[one.annotation])),
            }
        if one.suggestion is not None:
            x1, y1, x2, y2 = one.suggestion.box
            record["suggestion"] = {
                "bbox": [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)],
                **category(one.suggestion.label),
                "score": round(one.suggestion.score, 6),
            }
        records.append(record)
    return records
