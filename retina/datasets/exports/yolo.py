"""Any data set written in YOLO's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from retina.datasets.dataset import DetectionDataset
from retina.datasets.exports.exported_images import (
    OnImage,
    Splits,
    flat_names,
    joined_truths,
    place_images,
    require_images,
    start_folder,
)
from retina.datasets.images import read_header
from retina.datasets.repair import NOTICEABLE_OVERHANG, ordered_corners
from retina.errors import UnreadableImageError
from retina.storage import make_folder, write_text
from retina.structures import BoolArray, Categories, FloatArray, GroundTruth
from retina.wording import counted

_FOLDERS = {"": "train", "train": "train", "validation": "val", "test": "test"}


@dataclass(slots=True)
class _Changes:
    """How many boxes are not written as they are annotated."""

    crowd_regions: int = 0
    without_area: int = 0
    cut: int = 0

    def told(self) -> tuple[str, ...]:
        """One sentence for each kind that there is."""
        sentences = (
            (self.crowd_regions, "crowd region", "left out, which YOLO cannot tell from objects"),
            (self.without_area, "box", "without an area inside of the image left out"),
            (self.cut, "box", "cut at the edges of the image"),
        )
        return tuple(f"{counted(count, noun)} {what}" for count, noun, what in sentences if count)


def write_yolo(splits: Splits, folder: Path, on_image: OnImage) -> tuple[str, ...]:
    """Write data sets as ``data.yaml``, ``images/SPLIT/`` and ``labels/SPLIT/``.

    The readers of this format pass over an image with a box that leaves it. So boxes are cut at the
    edges of their image, and those without an area, and crowd regions, are left out.

    Args:
        splits: to be written; a single data set is written as ``train``.
        folder: into which.
        on_image: called with 1 after every image.

    Returns:
        What was left out or changed, one sentence each.
    """
    require_images(splits)
    start_folder(folder, ("data.yaml", "images", "labels"))
    categories, truths = joined_truths(splits)
    changes = _Changes()
    for split, dataset in splits.items():
        # One by one: each split has its folder.
        names = flat_names({split: dataset})[split]
        place_images(dataset, names, folder / "images" / _FOLDERS[split], on_image)
        labels = folder / "labels" / _FOLDERS[split]
        make_folder(labels)
        for index, text in enumerate(_label_texts(dataset, truths[split], changes)):
            path = labels / f"{PurePosixPath(names[index]).stem}.txt"
            path.write_text(text, encoding="utf-8")
    write_text(folder / "data.yaml", _data_yaml([*splits], categories))
    return changes.told()


def _data_yaml(splits: list[str], categories: Categories) -> str:
    # Without a key `path`: it would be taken from wherever the program that reads this is started.
    tree: dict[str, object] = {_FOLDERS[split]: f"images/{_FOLDERS[split]}" for split in splits}
    tree["names"] = dict(enumerate(categories.names))
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text


def _label_texts(dataset: DetectionDataset, truth: GroundTruth, changes: _Changes) -> list[str]:
    """The label file of every image; ``changes`` counts what was left out or changed."""
    limits = truth.image_sizes[truth.image_indices][:, [1, 0, 1, 0]].astype(np.float64)
    ordered = ordered_corners(truth.boxes_xywh)
    corners = np.clip(ordered, 0, limits)
    has_area = _has_area(truth.boxes_xywh, corners)
    is_cut = np.abs(corners - ordered).max(axis=1, initial=0) > NOTICEABLE_OVERHANG
    kept = has_area & ~truth.is_crowd
    changes.crowd_regions += int(truth.is_crowd.sum())
    changes.without_area += int((~has_area & ~truth.is_crowd).sum())
    changes.cut += int((is_cut & kept).sum())
    fractions = corners / limits
    rows: list[list[int]] = [[] for _ in range(len(dataset))]
    indices = truth.image_indices
    for row in np.flatnonzero(kept).tolist():
        rows[indices[row]].append(row)
    texts = []
    for index, own in enumerate(rows):
        boxes = _turned(fractions[own], _orientation(dataset, index))
        labels = truth.category_labels[own].tolist()
        texts.append("".join(map(_line, labels, boxes)))
    return texts


def _has_area(boxes_xywh: FloatArray, corners: FloatArray) -> BoolArray:
    is_known = (boxes_xywh[:, 2:] != -1).all(axis=1)
    return np.asarray(is_known & (corners[:, 2:] > corners[:, :2]).all(axis=1))


def _line(label: int, corners: FloatArray) -> str:
    x1, y1, x2, y2 = corners.tolist()
    # Nine digits: 1e-5 pixels where an image has 10,000.
    numbers = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return f"{label} {' '.join(f'{number:.9f}' for number in numbers)}\n"


def _orientation(dataset: DetectionDataset, index: int) -> int:
    """EXIF's number by which the boxes must be turned with their image, else 1.

    The readers of this format turn an image as EXIF asks for, and there is no size in it that says
    whether its boxes are those of the image before that.
    """
    try:
        header = read_header(Path(dataset.file_path(index)))
    except UnreadableImageError:
        return 1
    height, width = dataset.image_sizes[index].tolist()
    is_as_stored = header.stored_size == (height, width) != header.oriented_size
    return header.orientation if is_as_stored else 1


def _turned(corners: FloatArray, orientation: int) -> FloatArray:
    """Boxes ``(N, 4)`` in fractions of an image as stored, in those of the image turned."""
    x1, y1, x2, y2 = corners.T
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (3, 4, 7, 8):
        y1, y2 = 1 - y2, 1 - y1
    if orientation in (2, 3, 6, 7):
        x1, x2 = 1 - x2, 1 - x1
    return np.stack([x1, y1, x2, y2], axis=1)
