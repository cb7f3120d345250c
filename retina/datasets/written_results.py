"""Writing detections in COCO's results format, which `retina.datasets.coco_results` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retina.storage import replacing
from retina.structures import Categories, Detections, OriginalId


@dataclass(frozen=True, slots=True)
class ImageResults:
    """What was found in one image, and which it is.

    Attributes:
        image_id: as its file has it.
        found: in pixels of the original image.
        file_name: where the ids are those of no annotation file: written into every row, beside the
            ``category_name``.
        frame: its number in its video, from 0; written into every row, as the time is.
        time: of the frame, in seconds.
    """

    image_id: OriginalId
    found: Detections
    file_name: str | None = None
    frame: int | None = None
    time: float | None = None


def write_results(
    path: Path,
    image_ids: Sequence[OriginalId],
    detections: Sequence[Detections],
    categories: Categories,
) -> None:
    """`write_image_results` of images in memory, given by their ids and what was found in each."""
    pairs = zip(image_ids, detections, strict=True)
    write_image_results(path, (ImageResults(*pair) for pair in pairs), categories)


def write_image_results(
    path: Path, results: Iterable[ImageResults], categories: Categories
) -> None:
    """Write detections in COCO's results format, in one step; of one image at a time in memory.

    The numbers are written in full: a file that is read again scores the same to the last bit.

    Args:
        path: the file; its folder is made if need be.
        results: of every image.
        categories: give the original id of each label.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
        ValueError: a detection is not finite.
    """
    ids = [json.dumps(categories.original_id(label)) for label in range(len(categories))]
    names = [json.dumps(name) for name in categories.names]
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for one in results:
            for row in _rows(one, ids, names):
                file.write(separator + row)
                separator = ",\n"
        file.write("\n]\n" if separator != "[\n" else "[]\n")


def _rows(one: ImageResults, ids: Sequence[str], names: Sequence[str]) -> list[str]:
    found = one.found.cpu()
    if not bool(found.boxes.isfinite().all() and found.scores.isfinite().all()):
        raise ValueError(f"image id {one.image_id}: a box or score that is not finite has no JSON")
    # In float64, as `CocoMetrics.update` takes the differences.
    columns = zip(
        found.boxes.double().tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
    )
    image, last = json.dumps(one.image_id), ["" for _ in names]
    if one.file_name is not None:
        more = f', "file_name": {json.dumps(one.file_name)}'
        if one.frame is not None:
            more += f', "frame": {one.frame}, "time": {json.dumps(one.time)}'
        last = [f', "category_name": {name}{more}' for name in names]
    return [
        f'{{"image_id": {image}, "category_id": {ids[label]}, '
        f'"bbox": [{x1!r}, {y1!r}, {x2 - x1!r}, {y2 - y1!r}], "score": {score!r}{last[label]}}}'
        for (x1, y1, x2, y2), score, label in columns
    ]
