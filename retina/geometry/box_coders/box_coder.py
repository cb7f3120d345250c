"""What every box coder is to the rest of the code: a meaning of the head's numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from retina.configuration import Config


class BoxCoder(ABC):
    """Says what the numbers mean that a head predicts for a box, relative to its anchor.

    A box has four coordinates in the coder's own terms, and a code of `num_outputs` numbers, which
    are the coordinates themselves or distributions over them. The arithmetic is float32 at least,
    whatever the precision of the network.
    """

    num_outputs: int = 4
    """How many numbers the head predicts for a box."""

    @abstractmethod
    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The coordinates of boxes: ``(..., 4)`` and ``(..., 4)``, broadcast, to ``(..., 4)``."""

    @abstractmethod
    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """The boxes of codes: ``(..., num_outputs)`` and ``(..., 4)``, broadcast, to ``(..., 4)``.

        Finite codes near zero must give finite boxes.
        """

    def coordinates(self, codes: Tensor) -> Tensor:
        """The coordinates that codes stand for: ``(..., num_outputs)`` to ``(..., 4)``."""
        return codes

    def distributions(self, codes: Tensor) -> Tensor | None:
        """The logits of a distribution over each coordinate, ``(..., 4, n + 1)``.

        They are of the values 0 … n. None where codes are the coordinates themselves.
        """
        return None


class BoxCoderConfig(Config, ABC):
    """The config of a box coder.

    A new coder derives from it in a file of its own, with ``kind: Literal["..."] = "..."``, its
    settings and `build`, and gets one line in the list of ``__init__.py``.
    """

    kind: str

    @abstractmethod
    def build(self) -> BoxCoder:
        """The coder with these settings."""


def at_least_float32(values: Tensor) -> Tensor:
    """The same values in float32, or in what they are if that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The x and y of the centres, the widths and the heights, ``(...)`` each."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
