"""A backbone: five convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from retina.modeling.backbones.backbone import Backbone, BackboneConfig


class ToyConfig(BackboneConfig):
    """The smallest backbone."""

    kind: Literal["toy"] = "toy"
    name: Literal["toy5"] = "toy5"

    def network(self) -> Toy:
        """Five convolutions with random weights."""
        return Toy()


class Toy(Backbone):
    """A convolution and a normalisation for each stage."""

    channels = (8, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 4), (4, 8), (8, 8), (8, 8), (8, 8))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in widths)
        self.relu = nn.ReLU()

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """One for each convolution."""
        return [(conv, norm, self.relu) for conv, norm in zip(self.convs, self.norms, strict=True)]
