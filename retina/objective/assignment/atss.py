"""Adaptive training sample selection (Zhang et al. 2020, "Bridging the Gap Between Anchor-based
and Anchor-free Detection via Adaptive Training Sample Selection", algorithm 1).
"""  # noqa: D205

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.objective.assignment.assigner import Assigner, AssignerConfig
from retina.objective.assignment.crowd import inside_crowd
from retina.structures import Anchors, Assignment, BatchedTargets

BLOCK_ELEMENTS = 2**24


class ATSSConfig(AssignerConfig):
    """Assign by an IoU threshold that each object derives from its own nearest anchors."""

    kind: Literal["atss"] = "atss"
    candidates_per_level: Annotated[int, Field(ge=1)] = 9
    """Nearest cells an object takes candidates from on every level (the paper's k)."""
    crowd_iof: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Background anchors with more than this fraction of their area inside a crowd region are
    ignored; 1 turns this off."""

    def build(self) -> ATSSAssigner:
        """The assigner with these settings."""
        return ATSSAssigner(
            candidates_per_level=self.candidates_per_level, crowd_iof=self.crowd_iof
        )


@dataclass(frozen=True, kw_only=True)
class ATSSAssigner(Assigner):
    """Per object: the k nearest cells of every level give candidates; mean plus standard deviation
    of their IoUs is the threshold; candidates above it whose centre is inside the object are
    foreground. An anchor that several objects want goes to the one with the highest IoU, the first
    of equals. No anchor is ignored but those in crowd regions.
    """  # noqa: D205

    candidates_per_level: int
    crowd_iof: float

    @torch.no_grad()
    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """The assignment of ``(B, R)`` anchors; no host synchronisation.

        Memory grows with the candidates of all objects, not with objects × anchors.
        """
        boxes = targets.boxes.float()
        candidates = self._candidates(anchors, boxes)  # (B, M, C) anchor rows
        candidate_boxes = anchors.boxes[candidates]  # (B, M, C, 4)
        iou = pairwise_iou(candidate_boxes, boxes.unsqueeze(2)).squeeze(-1)  # (B, M, C)
        # As the authors compute it, divided by the number less 1; that of a single candidate is 0.
        deviation = iou.std(dim=2, correction=min(1, iou.shape[2] - 1), keepdim=True)
        threshold = iou.mean(dim=2, keepdim=True) + deviation
        centers = (candidate_boxes[..., :2] + candidate_boxes[..., 2:]) / 2
        is_inside = torch.minimum(
            centers - boxes[:, :, None, :2], boxes[:, :, None, 2:] - centers
        ).amin(dim=-1)
        is_positive = (iou >= threshold) & (is_inside > 0.01)
        is_positive &= targets.is_matchable.unsqueeze(2)

        batch, num_objects, num_candidates = candidates.shape
        rows = candidates.flatten(1)  # (B, M*C)
        wanted_iou = torch.where(is_positive, iou, -1.0).flatten(1)
        best_iou = iou.new_full((batch, len(anchors)), -1.0)
        best_iou = best_iou.scatter_reduce(1, rows, wanted_iou, reduce="amax")
        wins = is_positive.flatten(1) & (wanted_iou == best_iou.gather(1, rows))
        object_rows = torch.arange(num_objects, device=rows.device).view(1, num_objects, 1)
        object_rows = object_rows.expand(batch, num_objects, num_candidates).flatten(1)
        first = torch.full_like(best_iou, num_objects, dtype=torch.int64).scatter_reduce(
            1, rows, torch.where(wins, object_rows, num_objects), reduce="amin"
        )
        is_foreground = first < num_objects
        is_ignored = torch.zeros_like(is_foreground)
        if self.crowd_iof < 1:
            is_ignored = ~is_foreground & inside_crowd(anchors, targets, self.crowd_iof)
        return Assignment(
            target_index=torch.where(is_foreground, first, 0),
            is_foreground=is_foreground,
            is_ignored=is_ignored,
        )

    def _candidates(self, anchors: Anchors, boxes: Tensor) -> Tensor:
        """``(B, M, C)`` the anchors of the k nearest cells of every level, by centre distance."""
        anchor_centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2  # (R, 2)
        box_centers = (boxes[..., :2] + boxes[..., 2:]) / 2  # (B, M, 2)
        batch, num_objects = boxes.shape[:2]
        levels: list[Tensor] = []
        start = 0
        for count, per_cell in zip(anchors.num_per_level, anchors.num_per_cell, strict=True):
            wanted = min(self.candidates_per_level * per_cell, count)
            block = max(1, BLOCK_ELEMENTS // max(1, batch * count))
            level_centers = anchor_centers[start : start + count].expand(batch, count, 2)
            nearest = [
                torch.cdist(
                    box_centers[:, first : first + block],
                    level_centers,
                    compute_mode="donot_use_mm_for_euclid_dist",
                )
                .topk(wanted, dim=2, largest=False)
                .indices
                for first in range(0, max(1, num_objects), block)
            ]
            levels.append(torch.cat(nearest, dim=1) + start)
            start += count
        return torch.cat(levels, dim=2)
