"""Assignment by the highest IoU, as RetinaNet does it (Lin et al. 2017, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.objective.assignment.assigner import Assigner, AssignerConfig
from retina.objective.assignment.crowd import inside_crowd
from retina.structures import Anchors, Assignment, BatchedTargets

LowQualityRule = Literal["none", "anchor_best", "object"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

BLOCK_ELEMENTS = 2**24
"""How many IoUs are held at once (64 MiB of float32), however many objects an image has."""


class MaxIoUConfig(AssignerConfig):
    """Assign every anchor to the object that it overlaps most."""

    kind: Literal["max_iou"] = "max_iou"
    foreground_iou: Fraction = 0.5
    """At this IoU and above an anchor is foreground."""
    background_iou: Fraction = 0.4
    """Below this IoU an anchor is background; between the two it is ignored."""
    low_quality: LowQualityRule = "anchor_best"
    """What the best anchors of an object become where no IoU rule makes them foreground: ``none``
    (nothing), ``anchor_best`` (foreground for the object that the anchor overlaps most, as in
    torchvision and detectron2), ``object`` (foreground for that very object, the last one winning,
    as in mmdetection)."""
    crowd_iof: Fraction = 0.5
    """Background anchors with more than this fraction of their area inside a crowd region are
    ignored; 1 turns this off."""

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> Self:
        if self.background_iou > self.foreground_iou:
            raise ValueError(
                f"background_iou {self.background_iou} must not exceed foreground_iou "
                f"{self.foreground_iou}"
            )
        return self

    def build(self) -> MaxIoUAssigner:
        """The assigner with these settings."""
        return MaxIoUAssigner(
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
            low_quality=self.low_quality,
            crowd_iof=self.crowd_iof,
        )


@dataclass(frozen=True, kw_only=True)
class MaxIoUAssigner(Assigner):
    """See `MaxIoUConfig` for the rules.

    Ties are exact: an anchor that overlaps two objects equally belongs to the first of them, and
    every anchor that reaches the best IoU of an object, to the bit, is one of its best anchors. An
    object that no anchor overlaps has no best anchor (torchvision would then take all of them).
    """

    foreground_iou: float
    background_iou: float
    low_quality: LowQualityRule
    crowd_iof: float

    @torch.no_grad()
    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """The assignment of ``(B, R)`` anchors; no host synchronisation, memory bounded."""
        on_cpu = anchors.boxes.device.type == "cpu"
        overlaps = (self._object_by_object if on_cpu else self._in_blocks)(anchors, targets)
        is_foreground = (overlaps.best_iou >= self.foreground_iou) | overlaps.is_low_quality
        is_ignored = ~is_foreground & (overlaps.best_iou >= self.background_iou)
        if self.crowd_iof < 1:
            is_ignored |= ~is_foreground & inside_crowd(anchors, targets, self.crowd_iof)
        return Assignment(
            target_index=torch.where(is_foreground, overlaps.best_object, 0),
            is_foreground=is_foreground,
            is_ignored=is_ignored,
        )

    def _in_blocks(self, anchors: Anchors, targets: BatchedTargets) -> _Overlaps:
        """All images at once, a block of objects at a time: few large operations, for a GPU."""
        matchable = targets.is_matchable  # (B, M)
        blocks = _IoUBlocks(anchors.boxes, targets.boxes.float(), matchable)
        found = _Overlaps.none(targets, len(anchors))
        best_of_object: list[Tensor] = []
        for start, iou in blocks:
            block_best, block_object = iou.max(dim=1)  # (B, R) over the objects of the block
            is_better = block_best > found.best_iou  # strictly: the first of equal objects stays
            found.best_iou = torch.where(is_better, block_best, found.best_iou)
            found.best_object = torch.where(is_better, block_object + start, found.best_object)
            best_of_object.append(iou.amax(dim=2))
        if self.low_quality == "none":
            return found
        for (start, iou), highest in zip(blocks, best_of_object, strict=True):
            is_best = (iou == highest.unsqueeze(2)) & (iou > 0)
            is_low_quality = is_best.any(dim=1)  # (B, R)
            if self.low_quality == "object":
                count = is_best.shape[1]
                order = torch.arange(1, count + 1, device=iou.device).view(1, count, 1)
                last = (is_best * order).amax(dim=1) - 1 + start
                found.best_object = torch.where(is_low_quality, last, found.best_object)
            found.is_low_quality |= is_low_quality
        return found

    def _object_by_object(self, anchors: Anchors, targets: BatchedTargets) -> _Overlaps:
        """The same, bit for bit, by the few anchors that meet each object, in host memory."""
        found = _Overlaps.none(targets, len(anchors))
        left, top, right, bottom = anchors.boxes.T.contiguous()
        boxes = targets.boxes.float()
        objects = targets.is_matchable.nonzero().tolist() if len(anchors) else []
        for image, number in reversed(objects):  # so that the first of an image has the last word
            found.best_iou[image] = 0.0
            found.best_object[image] = number
        best: list[tuple[int, int, Tensor]] = []
        for image, number in objects:
            x1, y1, x2, y2 = boxes[image, number].tolist()
            meets = (left < x2) & (right > x1) & (top < y2) & (bottom > y1)
            rows = meets.nonzero().flatten()
            iou = pairwise_iou(boxes[image, number : number + 1], anchors.boxes[rows])[0]
            is_better = iou > found.best_iou[image, rows]
            better = rows[is_better]
            found.best_iou[image, better] = iou[is_better]
            found.best_object[image, better] = number
            if len(rows) and self.low_quality != "none" and (highest := iou.max()) > 0:
                best.append((image, number, rows[iou == highest]))
        for image, number, rows in best:
            found.is_low_quality[image, rows] = True
            if self.low_quality == "object":
                found.best_object[image, rows] = number
        return found


@dataclass
class _Overlaps:
    """What the rules look at, for each anchor of each image.

    Attributes:
        best_iou: ``(B, R)``, its highest IoU with an object; -1 where there is none.
        best_object: ``(B, R)``, the object that it answers for if it is foreground.
        is_low_quality: ``(B, R)``, whether it is foreground by the rule for low quality.
    """

    best_iou: Tensor
    best_object: Tensor
    is_low_quality: Tensor

    @classmethod
    def none(cls, targets: BatchedTargets, num_anchors: int) -> Self:
        """As it is without objects."""
        shape = (len(targets), num_anchors)
        return cls(
            targets.boxes.new_full(shape, -1.0, dtype=torch.float32),
            targets.labels.new_zeros(shape),
            targets.is_object.new_zeros(shape),
        )


class _IoUBlocks:
    """The IoU of every object with every anchor, a block of objects at a time.

    Yields the number of the block's first object and ``(B, m, R)`` IoUs, -1 for rows that are no
    matchable object; no block without anchors, which have no maximum. A single block is computed
    once and kept; several are computed anew for each pass, to the same bits.
    """

    def __init__(self, anchors: Tensor, boxes: Tensor, matchable: Tensor) -> None:
        self._anchors, self._boxes, self._matchable = anchors, boxes, matchable
        batch, num_objects = matchable.shape
        self._num_objects = num_objects if len(anchors) else 0
        per_object = max(1, batch * len(anchors))
        self._block_size = max(1, BLOCK_ELEMENTS // per_object)
        self._kept: tuple[int, Tensor] | None = None

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        if self._kept is not None:
            yield self._kept
            return
        for start in range(0, self._num_objects, self._block_size):
            stop = start + self._block_size
            iou = pairwise_iou(self._boxes[:, start:stop], self._anchors)
            iou = iou.masked_fill_(~self._matchable[:, start:stop, None], -1.0)
            if self._block_size >= self._num_objects:
                self._kept = (start, iou)
            yield start, iou
