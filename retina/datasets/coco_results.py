"""Detections as a file in COCO's results format: a JSON list with one object per detection.

``{"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.87}``; the ids are
those of the annotation file. A ``file_name`` and a ``category_name`` beside them say more than ids
do; other keys are allowed and ignored.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina.datasets.annotations import AnnotationTable
from retina.datasets.ids import NO_ID, Ids, canonical_id
from retina.datasets.result_references import (
    Reference,
    images_of_files,
    places_of,
    refuse_rows,
)
from retina.errors import UserError
from retina.structures import FloatArray, GroundTruth, IntArray, OriginalId
from retina.text_files import read_json

_ROW = struct.Struct("=qqqq5d")
_COLUMNS = np.dtype(
    [
        *(("image", "i8"), ("category", "i8"), ("file_name", "i8"), ("category_name", "i8")),
        *(("box", "f8", 4), ("score", "f8")),
    ]
)
_FORMAT = (
    'a detection is {"image_id": id, "category_id": id, "bbox": [x, y, width, height], "score": '
    "number}"
)


@dataclass(frozen=True, slots=True)
class DetectionArrays:
    """Detections of many images, one per row: what `CocoMetrics.update_arrays` takes.

    Attributes:
        image_ids: ``(N,)`` the ids of the ground truth.
        boxes_xywh: ``(N, 4)`` (x, y, width, height) in pixels.
        scores: ``(N,)``.
        labels: ``(N,)`` contiguous labels.
        findings: what reading them found, one sentence each.
    """

    image_ids: IntArray
    boxes_xywh: FloatArray
    scores: FloatArray
    labels: IntArray
    findings: tuple[str, ...] = ()


def read_results(
    path: Path, ground_truth: GroundTruth, images: AnnotationTable | None = None
) -> DetectionArrays:
    """Read a results file and check every row of it against the ground truth.

    A row that says a ``file_name`` or a ``category_name`` belongs to the image and the category of
    that name, whatever its ids say: these may be those of another file, or only count. Where the
    name could mean several, its id says which of them, and a finding tells it. Rows are
    packed while the file is parsed, so that memory holds 72 bytes a detection beside the text, not
    a tree of Python objects.

    Args:
        path: the file.
        ground_truth: what it shall be scored against.
        images: the annotations that the ground truth was made of: what its images are called.

    Raises:
        UserError: the file cannot be read, is no JSON list, or has a row that is no detection of
            an image and category of the ground truth; the message names the row, counted from 0.
    """
    categories = ground_truth.categories
    image_ids = Ids(ground_truth.image_ids, ground_truth.original_image_ids)
    numbers = np.asarray(categories.dataset_ids, dtype=np.int64)
    category_ids = Ids(numbers, categories.original_ids)
    packing = _Packing(image_ids, category_ids)
    rows = _parse(path, packing)
    table = np.frombuffer(packing.packed, dtype=_COLUMNS)
    # What could be packed is None in the list; anything else is a row that could not be read.
    for number, row in enumerate(rows):
        if row is not None:
            raise UserError(f"{path}: detection {number} (from 0) {_what_is_wrong(row)}; {_FORMAT}")
    if len(table) != len(rows):
        raise UserError(f"{path}: detections inside other detections; {_FORMAT}")
    is_finite = np.isfinite(table["box"]).all(axis=1) & np.isfinite(table["score"])
    refuse_rows(path, ~is_finite, "has a box or score that is not finite", "leave such rows out")
    is_negative = (table["box"][:, 2] < 0) | (table["box"][:, 3] < 0)
    refuse_rows(
        path, is_negative, "has a negative width or height", "a bbox is [x, y, width, height]"
    )
    found_images = Reference(
        _with_aliases(table["image"], images),
        ground_truth.image_ids,
        table["file_name"] if images is not None else np.full(len(table), -1),
        images_of_files(packing.file_names, images) if images is not None else [],
        packing.file_names,
        ("image_id", "file"),
        packing.strange_ids,
    )
    found_categories = Reference(
        table["category"],
        numbers,
        table["category_name"],
        [places_of(categories.names, name) for name in packing.category_names],
        packing.category_names,
        ("category_id", "class"),
        packing.strange_ids,
    )
    at_image = found_images.positions(
        path, "score the results against the annotation file of the same images"
    )
    labels = found_categories.positions(
        path,
        f"they have {_some(sorted(numbers.tolist()))}; write the original category ids of the "
        "annotation file, not contiguous labels",
    )
    keep, repeats = _without_repeats(table, at_image, labels, images)
    return DetectionArrays(
        image_ids=ground_truth.image_ids[at_image][keep],
        boxes_xywh=table["box"][keep],
        scores=table["score"][keep],
        labels=labels[keep],
        findings=tuple(
            filter(
                None,
                (
                    found_images.finding,
                    found_categories.finding,
                    repeats,
                    _scores_finding(path, table["score"]),
                ),
            )
        ),
    )


def scores_fix(low: float, high: float) -> str | None:
    """What makes scores of this range lie from 0 to 1; None where they do."""
    if low >= 0 and high <= 1:
        return None
    if low >= 0 and high <= 100:
        return "divide them by 100"
    return "map them to 0 … 1, logits by the sigmoid"


def _scores_finding(path: Path, scores: FloatArray) -> str:
    """A sentence on scores that AP can be made of, but no operating point; or nothing."""
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    fix = scores_fix(low, high)
    if fix is None:
        return ""
    return (
        f"{path.name} has scores from {low:.4g} to {high:.4g}: AP holds, but operating points and "
        f"calibration need scores from 0 to 1: {fix}"
    )


class _Packing:
    """A JSON object hook that packs detections away and returns anything else unchanged.

    Attributes:
        packed: `_ROW`s.
        file_names: each once; rows hold the position, or -1.
        category_names: likewise.
        strange_ids: what the annotations do not have and rows hold a number in the place of.
    """

    def __init__(self, image_ids: Ids, category_ids: Ids) -> None:
        self.packed = bytearray()
        self.file_names: dict[str, int] = {}
        self.category_names: dict[str, int] = {}
        self.strange_ids: dict[int, OriginalId] = {}
        self._images, self._categories = image_ids.by_meaning(), category_ids.by_meaning()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | None:
        try:
            x, y, width, height = row["bbox"]
            score = row["score"]
            if bool in map(type, (x, y, width, height, score)):  # which struct takes for a number
                return row
            packed = _ROW.pack(
                self._number(row["image_id"], self._images),
                self._number(row["category_id"], self._categories),
                _position(row.get("file_name"), self.file_names),
                _position(row.get("category_name"), self.category_names),
                *(x, y, width, height, score),
            )
        except (KeyError, TypeError, ValueError, OverflowError, struct.error):
            return row
        self.packed.extend(packed)
        return None

    def _number(self, value: Any, by_meaning: Mapping[OriginalId, int] | None) -> int:
        """The number of an id.

        Raises:
            ValueError: it is none.
        """
        if type(value) is int and by_meaning is None:
            return value
        meaning = canonical_id(value)
        if meaning is None:
            raise ValueError
        if by_meaning is None and isinstance(meaning, int):
            return meaning
        known = (by_meaning or {}).get(meaning)
        if known is None:
            known = NO_ID + len(self.strange_ids)
            self.strange_ids[known] = meaning
        return known


def _position(name: Any, names: dict[str, int]) -> int:
    return names.setdefault(name, len(names)) if isinstance(name, str) else -1


def _with_aliases(ids: IntArray, images: AnnotationTable | None) -> IntArray:
    if images is None or not images.image_aliases:
        return ids
    known, at = np.unique(ids, return_inverse=True)
    meant = [images.image_aliases.get(number, number) for number in known.tolist()]
    return np.array(meant, dtype=np.int64)[at]


def _without_repeats(
    table: npt.NDArray[Any], at_image: IntArray, labels: IntArray, images: AnnotationTable | None
) -> tuple[IntArray, str]:
    """The rows that count, and a finding: an image that was listed twice was detected on twice."""
    every = np.arange(len(table))
    if images is None or not images.image_aliases:
        return every, ""
    twice = np.isin(images.image_ids[at_image], list(images.image_aliases.values()))
    columns = [at_image, labels, table["score"], *table["box"].T]
    first = np.unique(np.stack(columns, axis=1)[twice], axis=0, return_index=True)[1]
    keep = np.sort(np.concatenate([every[~twice], every[twice][first]]))
    dropped = len(every) - len(keep)
    return keep, (
        f"{dropped} of {len(every)} detections repeat another one of an image that the "
        "annotations list several times: counted once"
        if dropped
        else ""
    )


def _parse(path: Path, hook: Callable[[dict[str, Any]], Any]) -> list[Any]:
    rows = read_json(path, "results file", hook)
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
        if canonical_id(row[key]) is None:
            return f"has the {key} {_short(row[key])}, which is no id"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        return f"has the bbox {_short(box)}, not a list of four numbers"
    if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in box):
        return f"has the bbox {_short(box)}, not all numbers"
    return f"has the score {_short(row['score'])}, not a number"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:10])
    return f"{shown}, … {values[-1]}" if len(values) > 10 else shown
