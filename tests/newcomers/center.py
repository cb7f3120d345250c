"""An assigner: by the centres of the anchors."""

from __future__ import annotations

from typing import Literal

import torch

from retina.objective.assignment.assigner import Assigner, AssignerConfig
from retina.objective.assignment.crowd import inside_crowd
from retina.structures import Anchors, Assignment, BatchedTargets


class CenterConfig(AssignerConfig):
    """Assign every anchor to the object that its centre lies in."""

    kind: Literal["center"] = "center"

    def build(self) -> CenterAssigner:
        """The assigner."""
        return CenterAssigner()


class CenterAssigner(Assigner):
    """An anchor is foreground where its centre lies in an object, the first of several."""

    @torch.no_grad()
    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """See `Assigner`."""
        centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2  # (R, 2)
        batch, num_objects = targets.is_object.shape
        first = torch.full((batch, len(anchors)), num_objects, device=centers.device)
        for row in reversed(range(num_objects)):  # one at a time: memory does not grow with M
            box = targets.boxes[:, row, None]  # (B, 1, 4)
            inside = ((centers > box[..., :2]) & (centers < box[..., 2:])).all(-1)  # (B, R)
            inside &= (targets.is_object & ~targets.is_crowd)[:, row, None]
            first = torch.where(inside, row, first)
        is_foreground = first < num_objects
        return Assignment(
            target_index=torch.where(is_foreground, first, 0),
            is_foreground=is_foreground,
            is_ignored=~is_foreground & inside_crowd(anchors, targets, 0.5),
        )
