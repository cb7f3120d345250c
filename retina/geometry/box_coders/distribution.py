"""Boxes as distributions over the distances of their sides from an anchor's centre.

Li et al. 2020, "Generalized Focal Loss", section 3.2: a softmax over the distances 0 … n, the
expectation of which is the side (eq. 5). The distances are in units of a share of the anchor's
side, so that any anchors do; with the paper's, eight strides wide, 0.125 is a stride.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from retina.geometry.box_coders.box_coder import (
    BoxCoder,
    BoxCoderConfig,
    at_least_float32,
    centers_and_sides,
)


class DistributionConfig(BoxCoderConfig):
    """How boxes are coded as distributions over distances."""

    kind: Literal["distribution"] = "distribution"
    """A softmax for each side of a box."""
    bins: Annotated[int, Field(ge=1, le=1024)] = 16
    """n: the largest distance, in units; the head predicts n + 1 logits for each side."""
    unit: Annotated[float, Field(gt=0)] = 0.125
    """One unit as a share of the anchor's width (left, right) or height (top, bottom)."""

    def build(self) -> DistributionCoder:
        """The coder with these bins and this unit."""
        return DistributionCoder(bins=self.bins, unit=self.unit)


class DistributionCoder(BoxCoder):
    """Turns 4·(n+1) logits into boxes: the expected distances left, top, right and bottom.

    Its coordinates are these four distances in units, which are negative where the centre of the
    anchor lies outside the box; no code reaches there, or beyond n.

    Args:
        bins: n, the largest distance.
        unit: of the distances, as a share of the anchor's side.
    """

    def __init__(self, *, bins: int, unit: float) -> None:
        self.bins = bins
        self.unit = unit
        self.num_outputs = 4 * (bins + 1)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The distances of boxes: ``(..., 4)`` and ``(..., 4)``, broadcast, to ``(..., 4)``."""
        x1, y1, x2, y2 = at_least_float32(boxes).unbind(-1)
        x, y, width, height = centers_and_sides(at_least_float32(anchors))
        unit_x, unit_y = self.unit * width, self.unit * height
        return torch.stack(
            [(x - x1) / unit_x, (y - y1) / unit_y, (x2 - x) / unit_x, (y2 - y) / unit_y], dim=-1
        )

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """The boxes of logits: ``(..., 4·(n+1))`` and ``(..., 4)``, broadcast, to ``(..., 4)``."""
        x, y, width, height = centers_and_sides(at_least_float32(anchors))
        unit_x, unit_y = self.unit * width, self.unit * height
        left, top, right, bottom = self.coordinates(codes).unbind(-1)
        return torch.stack(
            [x - left * unit_x, y - top * unit_y, x + right * unit_x, y + bottom * unit_y], dim=-1
        )

    def coordinates(self, codes: Tensor) -> Tensor:
        """The expected distances in units: ``(..., 4·(n+1))`` to ``(..., 4)``."""
        shares = self.distributions(at_least_float32(codes)).softmax(dim=-1)  # (..., 4, n + 1)
        values = torch.arange(self.bins + 1, dtype=shares.dtype, device=shares.device)
        return (shares * values).sum(dim=-1)

    def distributions(self, codes: Tensor) -> Tensor:
        """The logits side by side: ``(..., 4·(n+1))`` to ``(..., 4, n + 1)``, a view."""
        return codes.reshape(*codes.shape[:-1], 4, self.bins + 1)
