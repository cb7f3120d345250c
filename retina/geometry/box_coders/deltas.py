"""Boxes as offsets from anchors (R-CNN, Girshick et al. 2014, appendix C)."""

from __future__ import annotations

import math
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

Positive = Annotated[float, Field(gt=0)]

_SMALLEST_SIDE = 1e-6
"""In pixels. A row of padding in a batch is a box of zero size: its code is never used, yet it must
be finite, since a mask multiplies it by zero."""


class DeltasConfig(BoxCoderConfig):
    """How boxes are coded as offsets from their anchors."""

    kind: Literal["deltas"] = "deltas"
    """Four numbers for a box."""

    weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    """Factors on (dx, dy, dw, dh) as the network predicts them."""
    max_log_scale: Positive = math.log(1000 / 16)
    """Upper limit of dw and dh when decoding, so that exp cannot overflow."""

    def build(self) -> DeltasCoder:
        """The coder with these weights and this limit."""
        return DeltasCoder(weights=self.weights, max_log_scale=self.max_log_scale)


class DeltasCoder(BoxCoder):
    """Turns boxes into (dx, dy, dw, dh) relative to anchors, and back.

    Args:
        weights: factors on (dx, dy, dw, dh).
        max_log_scale: upper limit of dw and dh when decoding.
    """

    def __init__(self, *, weights: tuple[float, float, float, float], max_log_scale: float) -> None:
        self.weights = weights
        self.max_log_scale = max_log_scale

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The code of each box: ``(..., 4)`` and ``(..., 4)``, broadcast, to ``(..., 4)``."""
        boxes, anchors = at_least_float32(boxes), at_least_float32(anchors)
        x, y, width, height = centers_and_sides(boxes)
        anchor_x, anchor_y, anchor_width, anchor_height = centers_and_sides(anchors)
        width, height = width.clamp(min=_SMALLEST_SIDE), height.clamp(min=_SMALLEST_SIDE)
        weight_x, weight_y, weight_w, weight_h = self.weights
        return torch.stack(
            [
                weight_x * (x - anchor_x) / anchor_width,
                weight_y * (y - anchor_y) / anchor_height,
                weight_w * torch.log(width / anchor_width),
                weight_h * torch.log(height / anchor_height),
            ],
            dim=-1,
        )

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """The box of each code: ``(..., 4)`` and ``(..., 4)``, broadcast, to ``(..., 4)``."""
        deltas, anchors = at_least_float32(codes), at_least_float32(anchors)
        anchor_x, anchor_y, anchor_width, anchor_height = centers_and_sides(anchors)
        dx, dy, dw, dh = (
            delta / weight for delta, weight in zip(deltas.unbind(-1), self.weights, strict=True)
        )
        x = dx * anchor_width + anchor_x
        y = dy * anchor_height + anchor_y
        half_width = 0.5 * (torch.exp(dw.clamp(max=self.max_log_scale)) * anchor_width)
        half_height = 0.5 * (torch.exp(dh.clamp(max=self.max_log_scale)) * anchor_height)
        return torch.stack(
            [x - half_width, y - half_height, x + half_width, y + half_height], dim=-1
        )
