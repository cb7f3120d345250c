"""A box coder: how far each side lies from that of the anchor, and a number for all four."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from retina.geometry.box_coders.box_coder import BoxCoder, BoxCoderConfig, at_least_float32


class CornersConfig(BoxCoderConfig):
    """Offsets of the corners."""

    kind: Literal["corners"] = "corners"

    def build(self) -> CornersCoder:
        """The coder."""
        return CornersCoder()


class CornersCoder(BoxCoder):
    """Coordinates are the offsets of the corners, in sides of the anchor."""

    num_outputs = 5

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """See `BoxCoder`."""
        anchors = at_least_float32(anchors)
        return (at_least_float32(boxes) - anchors) / _sides(anchors)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """See `BoxCoder`."""
        anchors = at_least_float32(anchors)
        return self.coordinates(codes) * _sides(anchors) + anchors

    def coordinates(self, codes: Tensor) -> Tensor:
        """See `BoxCoder`."""
        codes = at_least_float32(codes)
        return codes[..., :4] + codes[..., 4:]


def _sides(anchors: Tensor) -> Tensor:
    """``(..., 4)``: width, height, width, height."""
    return (anchors[..., 2:] - anchors[..., :2]).tile(2)
