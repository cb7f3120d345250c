"""Label errors that are made up, to learn what one looks like to a detector.

Nothing is written and nothing is trained: the detector's outputs stay as they are, and only the
question is changed. "How would this image look if this box had been labelled as that class?"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from retina.geometry.boxes import xywh_to_xyxy
from retina.instruments.label_errors.corrupted_boxes import free_box, shifted_box
from retina.instruments.label_errors.evidence import Hypotheses
from retina.structures import BoolArray, FloatArray, GroundTruth, IntArray, Size

LABEL_KINDS = ("fine", "wrong_class", "badly_placed", "spurious")
"""What a label can be: the columns of its probabilities."""

_SHIFTED_IOU = (0.2, 0.7)
_TRIES = 10


@dataclass(frozen=True, slots=True)
class LabelledObjects:
    """The labels of a split that can be wrong: crowd regions and flat boxes cannot.

    Attributes:
        truth: the whole split.
        rows: ``(N,)`` its annotations that are meant, those of an image side by side.
        starts: ``(I + 1,)`` the labels of image i are ``rows[starts[i] : starts[i + 1]]``.
        crowd_rows: ``(C,)`` its crowd regions, in the same order.
        crowd_starts: ``(I + 1,)`` of them.
    """

    truth: GroundTruth
    rows: IntArray
    starts: IntArray
    crowd_rows: IntArray
    crowd_starts: IntArray

    @classmethod
    def of(cls, truth: GroundTruth) -> Self:
        """The labels of a split."""
        has_area = (truth.boxes_xywh[:, 2:] > 0).all(axis=1)
        labels = _by_image(truth, ~truth.is_crowd & has_area)
        crowds = _by_image(truth, truth.is_crowd & has_area)
        return cls(truth, *labels, *crowds)

    def in_image(self, index: int) -> IntArray:
        """The annotations of an image."""
        return self.rows[self.starts[index] : self.starts[index + 1]]

    def crowds_in_image(self, index: int) -> IntArray:
        """The crowd regions of an image, as rows of the ground truth."""
        return self.crowd_rows[self.crowd_starts[index] : self.crowd_starts[index + 1]]

    def boxes(self, rows: IntArray) -> Tensor:
        """``(N, 4)`` float32 corners."""
        boxes = torch.from_numpy(self.truth.boxes_xywh[rows]).float().reshape(-1, 4)
        return xywh_to_xyxy(boxes)

    def labels(self, rows: IntArray) -> Tensor:
        """``(N,)`` int64 labels of these annotations."""
        return torch.from_numpy(self.truth.category_labels[rows])


def _by_image(truth: GroundTruth, is_meant: BoolArray) -> tuple[IntArray, IntArray]:
    """The annotations that are meant, those of an image side by side, and where each begins."""
    images = truth.image_indices
    rows = np.flatnonzero(is_meant)
    rows = rows[np.argsort(images[rows], kind="stable")]
    counts = np.bincount(images[rows], minlength=len(truth.image_ids))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return rows.astype(np.int64), starts.astype(np.int64)


@dataclass(frozen=True, slots=True)
class ImageHypotheses:
    """The labels of an image, and errors made up beside them.

    Attributes:
        hypotheses: the N labels first.
        kinds: ``(H,)`` int64, an index of `LABEL_KINDS`; the labels themselves count as fine.
    """

    hypotheses: Hypotheses
    kinds: Tensor


def imagine_errors(objects: LabelledObjects, image_index: int, *, seed: int) -> ImageHypotheses:
    """The labels of an image, and for each of them one error of every kind where that can be."""
    rows = objects.in_image(image_index)
    random = np.random.default_rng((seed, image_index))
    height, width = objects.truth.image_sizes[image_index].tolist()
    own = objects.truth.boxes_xywh[rows]
    crowds = objects.truth.boxes_xywh[objects.crowds_in_image(image_index)]
    labels = objects.labels(rows)
    all_rows = torch.arange(len(rows))
    none = torch.full((len(rows),), -1)
    swapped = _other_classes(objects, labels, random)
    shifted = [shifted_box(box, (height, width), random, overlap=_SHIFTED_IOU) for box in own]
    models = objects.rows[random.integers(len(objects.rows), size=len(rows))] if len(rows) else rows
    spurious = [
        _free(objects.truth.boxes_xywh[row], own, crowds, (height, width), random) for row in models
    ]
    parts = (
        (own.tolist(), labels, all_rows, 0),
        *([] if swapped is None else [(own.tolist(), swapped, all_rows, 1)]),
        (shifted, labels, all_rows, 2),
        (spurious, objects.labels(models), none, 3),
    )
    boxes, chosen, stands_for, kinds = [], [], [], []
    for candidates, classes, index, kind in parts:
        kept = torch.tensor([box is not None for box in candidates], dtype=torch.bool)
        boxes += [box for box in candidates if box is not None]
        chosen.append(classes[kept])
        stands_for.append(index[kept])
        kinds.append(torch.full((int(kept.sum()),), kind))
    corners = xywh_to_xyxy(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return ImageHypotheses(
        Hypotheses(corners, torch.cat(chosen), torch.cat(stands_for)), torch.cat(kinds)
    )


def _other_classes(
    objects: LabelledObjects, labels: Tensor, random: np.random.Generator
) -> Tensor | None:
    """Another class for each label, of those that are used; None where there is only one."""
    used = np.unique(objects.truth.category_labels[objects.rows])
    if len(used) < 2:
        return None
    others = [used[used != label] for label in labels.tolist()]
    return torch.tensor([int(random.choice(one)) for one in others], dtype=torch.int64)


def _free(
    model: FloatArray,
    others: FloatArray,
    crowds: FloatArray,
    size: Size,
    random: np.random.Generator,
) -> list[float] | None:
    for _ in range(_TRIES):
        box = free_box(model.tolist(), others.tolist(), size, random, crowds=crowds.tolist())
        if box is not None:
            return box
    return None
