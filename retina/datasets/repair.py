"""Boxes as annotated become boxes that training can use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina.datasets.annotations import AnnotationTable
from retina.structures import BoolArray, FloatArray, IntArray
from retina.wording import counted

NOTICEABLE_OVERHANG = 0.01
"""Boxes that reach out of their image by less, in pixels, are clipped without a word: rounding."""


@dataclass(frozen=True, slots=True)
class ImageObjects:
    """The repaired objects of all images, those of an image side by side.

    Attributes:
        boxes: ``(N, 4)`` float32 (x1, y1, x2, y2), inside their image, of positive sides.
        labels: ``(N,)`` int64.
        is_crowd: ``(N,)`` bool.
        starts: ``(I + 1,)`` int64; the objects of image i are rows ``starts[i] : starts[i + 1]``.
    """

    boxes: npt.NDArray[np.float32]
    labels: IntArray
    is_crowd: BoolArray
    starts: IntArray

    def rows(self, image_index: int) -> slice:
        """Where the objects of an image stand."""
        return slice(int(self.starts[image_index]), int(self.starts[image_index + 1]))


@dataclass(frozen=True, slots=True)
class BoxRepair:
    """What becomes of the boxes of a table, G of them.

    Attributes:
        boxes: ``(G, 4)`` float32 (x1, y1, x2, y2), inside their image.
        usable: ``(G,)`` whether each has an area.
        faults: what was wrong with some, and what was done; and which of them, ``(G,)`` bool.
    """

    boxes: npt.NDArray[np.float32]
    usable: BoolArray
    faults: tuple[tuple[str, BoolArray], ...]


def repair_of(table: AnnotationTable) -> BoxRepair:
    """How the boxes of a table are made usable.

    - Of a box whose width or height is negative the corners are swapped.
    - What lies outside of the image is cut off.
    - A box without a width or a height after that is dropped.
    - Exact duplicates are kept, but counted.

    Args:
        table: with finite boxes and known image sizes.
    """
    width, height = table.boxes_xywh[:, 2:].T
    limits = table.image_sizes[table.image_indices][:, [1, 0, 1, 0]].astype(np.float64)
    ordered = ordered_corners(table.boxes_xywh)
    clipped = np.clip(ordered, 0, limits).astype(np.float32)
    is_flat = (width == 0) | (height == 0)
    usable = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    overhang = np.maximum(-ordered, ordered - limits).max(axis=1, initial=0)
    is_clipped = usable & (overhang > NOTICEABLE_OVERHANG)
    furthest = overhang[is_clipped].max(initial=0)
    faults = (
        ("without a width or a height: dropped", is_flat),
        ("outside of the image: dropped", ~usable & ~is_flat),
        ("with swapped corners: turned round", usable & ((width < 0) | (height < 0))),
        (f"reaching out of the image (by up to {furthest:.4g} pixels): clipped", is_clipped),
        ("repeating another one exactly (same class): kept", _repeats(table)),
    )
    return BoxRepair(clipped, usable, faults)


def ordered_corners(boxes_xywh: FloatArray) -> FloatArray:
    """``(G, 4)`` (x1, y1, x2, y2), the smaller first also where a width or height is negative."""
    first, second = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def repair_boxes(table: AnnotationTable) -> tuple[ImageObjects, tuple[str, ...]]:
    """The objects for training, and what had to be done, one sentence each: see `repair_of`."""
    repair = repair_of(table)
    order = np.flatnonzero(repair.usable)
    order = order[np.argsort(table.image_indices[order], kind="stable")]
    counts = np.bincount(table.image_indices[order], minlength=table.num_images)
    objects = ImageObjects(
        boxes=repair.boxes[order],
        labels=table.labels[order],
        is_crowd=table.is_crowd[order],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    return objects, tuple(text for text, _ in _told(table, repair))


def repair_findings(table: AnnotationTable) -> list[tuple[str, BoolArray]]:
    """The sentences of `repair_boxes`, and which annotations each is about, ``(G,)``."""
    return _told(table, repair_of(table))


def unfindable_findings(table: AnnotationTable) -> tuple[str, ...]:
    """The boxes that no detection can find, which are scored as they stand: a sentence each kind.

    Args:
        table: with finite boxes; what lies outside of an image of unknown size is not told.
    """
    width, height = table.boxes_xywh[:, 2:].T
    sizes = table.image_sizes[table.image_indices][:, [1, 0]].astype(np.float64)
    ordered = ordered_corners(table.boxes_xywh)
    is_flat = (width == 0) | (height == 0)
    is_swapped = ~is_flat & ((width < 0) | (height < 0))
    is_out = ((ordered[:, :2] >= sizes) | (ordered[:, 2:] <= 0)).any(axis=1) & (sizes > 0).all(
        axis=1
    )
    faults = (
        ("without a width or a height: scored as annotated, though nothing can find it", is_flat),
        ("with swapped corners: scored as annotated, though nothing can find it", is_swapped),
        (
            "outside of the image: scored as annotated, though nothing inside can find it",
            is_out & ~is_flat & ~is_swapped,
        ),
    )
    return tuple(_finding(table, which, what) for what, which in faults if which.any())


def _told(table: AnnotationTable, repair: BoxRepair) -> list[tuple[str, BoolArray]]:
    return [(_finding(table, which, what), which) for what, which in repair.faults if which.any()]


def _repeats(table: AnnotationTable) -> BoolArray:
    """``(G,)`` whether an earlier annotation has the same image, class, crowd flag and box."""
    columns = (table.image_indices, table.labels, table.is_crowd, *table.boxes_xywh.T)
    order = np.lexsort(columns)  # stable, so the earlier of two equal ones stays first
    same_as_previous = np.ones(max(0, len(order) - 1), dtype=bool)
    for column in columns:
        same_as_previous &= column[order[1:]] == column[order[:-1]]
    repeats = np.zeros(len(order), dtype=bool)
    repeats[order[1:][same_as_previous]] = True
    return repeats


def _finding(table: AnnotationTable, which: BoolArray, what: str) -> str:
    count = int(which.sum())
    first = table.describe(int(np.flatnonzero(which)[0]))
    return f"{counted(count, 'box')} {what} (first: {first})"
