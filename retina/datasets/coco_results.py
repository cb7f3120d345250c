"""Detections as a file in COCO's results format: a JSON list with one object per detection.

``{"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.87}``; the ids are
those of the annotation file. Further keys are allowed and ignored.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina.errors import UserError
from retina.storage import replacing
from retina.structures import BoolArray, Categories, Detections, FloatArray, GroundTruth, IntArray

_ROW = struct.Struct("=qq5d")
_COLUMNS = np.dtype([("image", "i8"), ("category", "i8"), ("box", "f8", 4), ("score", "f8")])
_FORMAT = (
    'a detection is {"image_id": integer, "category_id": integer, '
    '"bbox": [x, y, width, height], "score": number}'
)


@dataclass(frozen=True, slots=True)
class DetectionArrays:
    """Detections of many images, one per row: what `CocoMetrics.update_arrays` takes.

    Attributes:
        image_ids: ``(N,)`` original ids.
        boxes_xywh: ``(N, 4)`` (x, y, width, height) in pixels.
        scores: ``(N,)``.
        labels: ``(N,)`` contiguous labels.
    """

    image_ids: IntArray
    boxes_xywh: FloatArray
    scores: FloatArray
    labels: IntArray


def read_results(path: Path, ground_truth: GroundTruth) -> DetectionArrays:
    """Read a results file and check every row of it against the ground truth.

    Rows are packed while the file is parsed, so that memory holds 56 bytes a detection beside the
    text, not a tree of Python objects.

    Raises:
        UserError: the file cannot be read, is no JSON list, or has a row that is no detection of
            an image and category of the ground truth; the message names the row, counted from 0.
    """
    packed = bytearray()
    rows = _parse(path, _packing_hook(packed))
    table = np.frombuffer(packed, dtype=_COLUMNS)
    # What the hook could pack is None in the list; anything else is a row it could not read.
    for number, row in enumerate(rows):
        if row is not None:
            raise UserError(f"{path}: detection {number} (from 0) {_what_is_wrong(row)}; {_FORMAT}")
    if len(table) != len(rows):
        raise UserError(f"{path}: detections inside other detections; {_FORMAT}")

    is_finite = np.isfinite(table["box"]).all(axis=1) & np.isfinite(table["score"])
    _refuse(path, ~is_finite, "has a box or score that is not finite", "leave such rows out")
    _refuse(
        path,
        ~np.isin(table["image"], ground_truth.image_ids),
        "is of image_id {}, which the annotations do not have",
        "score the results against the annotation file of the same images",
        table["image"],
    )
    ids = np.asarray(ground_truth.categories.dataset_ids, dtype=np.int64)
    _refuse(
        path,
        ~np.isin(table["category"], ids),
        "is of category_id {}, which is no category of the annotations "
        f"({_some(sorted(ids.tolist()))})",
        "write the original category ids of the annotation file, not contiguous labels",
        table["category"],
    )
    order = np.argsort(ids)
    return DetectionArrays(
        image_ids=table["image"].astype(np.int64),
        boxes_xywh=table["box"].astype(np.float64),
        scores=table["score"].astype(np.float64),
        labels=order[np.searchsorted(ids, table["category"], sorter=order)]
        if len(ids)
        else np.zeros(0, dtype=np.int64),
    )


def write_results(
    path: Path,
    image_ids: Sequence[int],
    detections: Sequence[Detections],
    categories: Categories,
    *,
    file_names: Sequence[str] | None = None,
) -> None:
    """Write detections in COCO's results format, in one step.

    The numbers are written in full: a file that is read again scores the same to the last bit.

    Args:
        path: the file; its folder is made if need be.
        image_ids: the original id of each image.
        detections: of each image, in pixels of the original image.
        categories: give the original id of each label.
        file_names: of each image, written as ``file_name`` into every row.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
        ValueError: a detection is not finite.
    """
    names: Sequence[str | None] = file_names if file_names is not None else [None] * len(image_ids)
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id, found, name in zip(image_ids, detections, names, strict=True):
            for row in _rows(image_id, found, categories, name):
                file.write(separator + row)
                separator = ",\n"
        file.write("\n]\n" if separator != "[\n" else "[]\n")


def _rows(
    image_id: int, detections: Detections, categories: Categories, file_name: str | None
) -> list[str]:
    found = detections.cpu()
    if not bool(found.boxes.isfinite().all() and found.scores.isfinite().all()):
        raise ValueError(f"image id {image_id}: a box or score that is not finite has no JSON")
    # In float64, as `CocoMetrics.update` takes the differences.
    columns = zip(
        found.boxes.double().tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
    )
    last = "" if file_name is None else f', "file_name": {json.dumps(file_name)}'
    return [
        f'{{"image_id": {image_id}, "category_id": {categories.dataset_ids[label]}, '
        f'"bbox": [{x1!r}, {y1!r}, {x2 - x1!r}, {y2 - y1!r}], "score": {score!r}{last}}}'
        for (x1, y1, x2, y2), score, label in columns
    ]


def _packing_hook(packed: bytearray) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """A JSON object hook that moves detections into ``packed`` and returns the rest unchanged."""

    def hook(row: dict[str, Any]) -> dict[str, Any] | None:
        try:
            box = row["bbox"]
            packed.extend(_ROW.pack(row["image_id"], row["category_id"], *box, row["score"]))
        except (KeyError, TypeError, OverflowError, struct.error):
            ids = [row.get("image_id"), row.get("category_id")]
            if not any(isinstance(id_, float) and id_.is_integer() for id_ in ids):
                return row
            whole = {
                key: int(id_) if isinstance(id_, float) and id_.is_integer() else id_
                for key, id_ in zip(("image_id", "category_id"), ids, strict=True)
            }
            # 42.0 is the id 42; what is wrong beyond that stays wrong on the second look.
            return row if hook({**row, **whole}) is not None else None
        return None

    return hook


def _parse(path: Path, hook: Callable[[dict[str, Any]], Any]) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no text in UTF-8 ({error}); give a JSON results file"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        rows = json.loads(text, object_hook=hook)
    except (ValueError, RecursionError) as error:
        size = f"{len(text)} characters"
        raise UserError(
            f"{path}: is no complete JSON ({error}; the file has {size}); write it again"
        ) from None
    if not isinstance(rows, list):
        kind = "one JSON object" if rows is None or isinstance(rows, dict) else "no list"
        hint = (
            "this looks like an annotation file: the results go here, the annotations to "
            "--annotations"
            if isinstance(rows, dict) and {"images", "annotations"} & rows.keys()
            else "give a JSON list of detections"
        )
        raise UserError(f"{path}: holds {kind}, not a list of detections; {hint}")
    return rows


def _what_is_wrong(row: Any) -> str:
    if not isinstance(row, dict):
        return f"is {_short(row)}, not an object"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"has no {' and no '.join(repr(key) for key in missing)}"
    for key in ("image_id", "category_id"):
        if not isinstance(row[key], int) or abs(row[key]) >= 2**63:
            return f"has the {key} {_short(row[key])}, not an integer"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        return f"has the bbox {_short(box)}, not a list of four numbers"
    if not all(isinstance(side, int | float) for side in box):
        return f"has the bbox {_short(box)}, not all numbers"
    return f"has the score {_short(row['score'])}, not a number"


def _refuse(
    path: Path,
    is_wrong: BoolArray,
    what: str,
    fix: str,
    values: npt.NDArray[Any] | None = None,
) -> None:
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        fault = what if values is None else what.format(values[row])
        raise UserError(f"{path}: detection {row} (from 0) {fault}; {fix}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:10])
    return f"{shown}, … {values[-1]}" if len(values) > 10 else shown
