"""A copy of annotations in which everything is as a training would read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from retina.datasets.annotations import AnnotationTable, without_a_box
from retina.datasets.repair import repair_of
from retina.structures import BoolArray, FloatArray
from retina.wording import counted


def fix_annotations(
    written: AnnotationTable, table: AnnotationTable, broken_images: Mapping[int, str]
) -> tuple[AnnotationTable, tuple[str, ...]]:
    """The annotations with their boxes repaired, and without the images that cannot be read.

    Args:
        written: what the files say.
        table: what a data set makes of them, with finite boxes, areas and image sizes.
        broken_images: by index, what is wrong with each image that is left out.

    Returns:
        The repaired annotations, and every change: what the reader did, then a line for each box
        and each image.
    """
    changes = [
        *written.findings,
        *_described(written, ((f"{why}: dropped", which) for why, which in without_a_box(written))),
        *_described(table, repair_of(table).faults),
        *_image_changes(table, broken_images),
    ]
    repair = repair_of(table)
    boxes = repair.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    boxes = np.where(_is_changed(table)[:, None], boxes, table.boxes_xywh)
    fixed = replace(with_boxes(table, boxes), findings=())
    kept = np.setdiff1d(np.arange(table.num_images), list(broken_images))
    return fixed.take_annotations(repair.usable).take_images(kept), tuple(changes)


def with_boxes(table: AnnotationTable, boxes_xywh: FloatArray) -> AnnotationTable:
    """The table with other boxes, ``(G, 4)``.

    An area that is the old box's becomes the new one's; another one is that of a mask, and stays.
    """
    ours = table.areas == np.abs(table.boxes_xywh[:, 2] * table.boxes_xywh[:, 3])
    areas = np.where(ours, np.abs(boxes_xywh[:, 2] * boxes_xywh[:, 3]), table.areas)
    return replace(table, boxes_xywh=boxes_xywh, areas=areas)


def _is_changed(table: AnnotationTable) -> BoolArray:
    changed = np.zeros(len(table.labels), dtype=bool)
    for what, which in repair_of(table).faults:
        changed |= which & (not what.endswith("kept"))
    return changed


def _described(table: AnnotationTable, faults: Iterable[tuple[str, BoolArray]]) -> Iterator[str]:
    for what, which in faults:
        for annotation in np.flatnonzero(which):
            box = ", ".join(f"{side:.6g}" for side in table.boxes_xywh[annotation])
            yield f"{table.describe(int(annotation))}: box [{box}] {what}"


def _image_changes(table: AnnotationTable, broken_images: Mapping[int, str]) -> Iterator[str]:
    counts = np.bincount(table.image_indices, minlength=table.num_images)
    for index, reason in sorted(broken_images.items()):
        annotations = counted(int(counts[index]), "annotation")
        yield f"image '{table.file_name(index)}' with {annotations} left out: {reason}"
