"""ResNet and ResNeXt from torchvision (He et al. 2016, Xie et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torchvision
from torch import nn

from retina.modeling.backbones.backbone import Backbone, BackboneConfig

ResNetName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
]


class ResNetConfig(BackboneConfig):
    """A ResNet or ResNeXt without its classifier."""

    kind: Literal["resnet"] = "resnet"
    name: ResNetName = "resnet50"
    """torchvision's name of the network."""

    classifier: ClassVar[str] = "fc."

    @property
    def usual_weights(self) -> str | None:
        """The weights that torchvision has of each of the names."""
        return "IMAGENET1K_V1"

    def network(self) -> ResNet:
        """Torchvision's network, initialised as it does."""
        return ResNet(self.name)


class ResNet(Backbone):
    """The stem and the four stages of a torchvision ResNet, under torchvision's names."""

    def __init__(self, name: ResNetName) -> None:
        super().__init__()
        network = torchvision.models.get_model(name, weights=None)
        self.conv1: nn.Module = network.conv1
        self.bn1: nn.Module = network.bn1
        self.relu: nn.Module = network.relu
        self.maxpool: nn.Module = network.maxpool
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4
        c2 = network.inplanes // 8  # inplanes are the channels of C5
        self.channels = (c2, 2 * c2, 4 * c2, 8 * c2)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem, and layer1 to layer4."""
        stem = (self.conv1, self.bn1, self.relu, self.maxpool)
        return (stem, (self.layer1,), (self.layer2,), (self.layer3,), (self.layer4,))
