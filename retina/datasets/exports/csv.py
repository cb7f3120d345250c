"""Any data set written as a CSV file with a row per box."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retina.datasets.exports.exported_images import (
    OnImage,
    Splits,
    joined_truths,
    names_below,
    place_images,
    require_images,
    start_folder,
)
from retina.storage import write_text
from retina.structures import FloatArray, GroundTruth

_ENTRIES = ("annotations.csv", "classes.csv", "images")
_COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "iscrowd")


def write_csv(
    splits: Splits, folder: Path, on_image: OnImage, *, scores: FloatArray | None = None
) -> tuple[str, ...]:
    """Write data sets as ``SPLIT/annotations.csv``, ``classes.csv`` and ``images/``.

    A single data set is written without a folder of its split. The columns are those of
    TensorFlow's tables and ``iscrowd``; an image without a box has a row without one. Boxes are as
    annotated, also in fractions of a pixel; ``classes.csv`` has the name and the id of each class.

    Args:
        splits: to be written.
        folder: into which.
        on_image: called with 1 after every image.
        scores: ``(G,)`` of the boxes, for a column ``score``; only of a single data set.

    Returns:
        Nothing to be told: the format holds all.
    """
    require_images(splits)
    start_folder(folder, [split or entry for split in splits for entry in _ENTRIES])
    categories, truths = joined_truths(splits)
    classes = list(zip(categories.names, categories.dataset_ids, strict=True))
    for split, dataset in splits.items():
        names = names_below(dataset)
        place_images(dataset, names, folder / split / "images", on_image)
        write_text(folder / split / "classes.csv", _text(classes))
        write_text(folder / split / "annotations.csv", _rows(truths[split], names, scores))
    return ()


def _rows(truth: GroundTruth, names: Sequence[str], scores: FloatArray | None) -> str:
    order = np.argsort(truth.image_indices, kind="stable")
    starts = np.searchsorted(truth.image_indices[order], np.arange(len(names) + 1))
    rows: list[Sequence[object]] = [_COLUMNS if scores is None else (*_COLUMNS, "score")]
    for index, name in enumerate(names):
        height, width = truth.image_sizes[index].tolist()
        own = order[starts[index] : starts[index + 1]].tolist()
        for row in own:
            score = [] if scores is None else [float(scores[row])]
            rows.append([name, width, height, *_cells(truth, row), *score])
        if not own:
            rows.append([name, width, height, *[""] * (len(rows[0]) - 3)])
    return _text(rows)


def _cells(truth: GroundTruth, row: int) -> list[object]:
    x, y, width, height = truth.boxes_xywh[row].tolist()
    corners = (x, y, x + width, y + height)
    return [
        truth.categories.names[int(truth.category_labels[row])],
        *(int(value) if value.is_integer() else value for value in corners),
        int(truth.is_crowd[row]),
    ]


def _text(rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
