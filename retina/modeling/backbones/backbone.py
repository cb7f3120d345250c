"""What every backbone is to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from retina.configuration import Config
from retina.errors import UserError
from retina.modeling.depthwise import use_quick_depthwise
from retina.modeling.normalization import NormKind, set_norms
from retina.modeling.pixels import IMAGENET, Pixels
from retina.modeling.pretrained import (
    WeightOrigin,
    is_weight_file,
    load_pretrained,
    origin_of,
    pixels_of_file,
)

FinestMap = Literal["c2", "c3"]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The shape of one feature map.

    Attributes:
        channels: its width.
        stride: pixels of the image per cell.
    """

    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """A network of five stages: the stem, and those that give C2 to C5 (strides 4, 8, 16 and 32).

    A new one names its submodules as torchvision does, sets `channels`, and says in `stages` which
    submodules are run one after the other.
    """

    channels: tuple[int, ...]
    """Widths of C2, C3, C4 and C5; a backbone without a map of stride 4 begins with C3."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen_stages = 0
        self.num_maps = 4

    @abstractmethod
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The submodules of each stage, the stem first."""

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Width and stride of each feature map that `forward` gives."""
        strides = (4, 8, 16, 32)[-self.num_maps :]
        widths = self.channels[-self.num_maps :]
        return tuple(map(FeatureSpec, widths, strides))

    def start_at(self, finest_map: FinestMap) -> None:
        """Give no map that is finer than this.

        Raises:
            UserError: the backbone has none as fine.
        """
        self.num_maps = {"c2": 4, "c3": 3}[finest_map]
        if self.num_maps > len(self.channels):
            raise UserError(
                f"model.backbone.finest_map: this backbone has no {finest_map}, whose stride is 4; "
                "give c3"
            )

    def freeze(self, num_stages: int) -> None:
        """Let the first stages never learn; their statistics stay as they are, too."""
        self.frozen_stages = num_stages
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for stage in self.stages()[: self.frozen_stages] for module in stage]

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except in the frozen stages."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps ``(B, channels, H, W)``, C5 last, of images ``(B, 3, H, W)``."""
        features = images
        maps: list[Tensor] = []
        for number, stage in enumerate(self.stages(), start=1):
            learns = number > self.frozen_stages
            with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                for module in stage:
                    features = module(features)
            maps.append(features)
        return tuple(maps[-self.num_maps :])


class BackboneConfig(Config, ABC):
    """The keys that every backbone has, and all that others may read of one.

    A new kind sets `kind`, `name` and `network`; the keys work without its doing. Where another
    default is right for it (the epsilon of its published weights), it declares the key again.
    """

    kind: str
    """Which of the kinds."""
    name: str
    """torchvision's name of the network, which is also shown to people."""
    weights: str | None = None
    """torchvision's name of pretrained weights (`IMAGENET1K_V1`), or a local file
    (`.safetensors`, `.pt`, `.pth`) with the same entries; null starts from random weights."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """How many stages never learn: 0 none, 1 the stem, 2 also what gives C2 … 5 the whole backbone.
    Their normalisation keeps its statistics too."""
    norm: NormKind = "batch"
    """`frozen`: statistics and affine parameters are constants. `batch`: live, per process.
    `sync`: live, over all processes (CUDA only). Without meaning where the network has no batch
    normalisation."""
    norm_eps: Annotated[float, Field(ge=0)] | None = 1e-5
    """Added to the variance by batch normalisation; null keeps what the network is made with. No
    state dict says which value its weights were trained with."""
    finest_map: FinestMap = "c3"
    """The finest feature map that is used. `c2` adds a pyramid level of stride 4 (P2) for objects
    of a few pixels: four times as many anchors, and `anchors.sizes` needs one more entry."""

    classifier: ClassVar[str] = "classifier."
    """How the names of the entries of pretrained weights begin that are no part of the backbone."""

    @property
    def usual_weights(self) -> str | None:
        """The weights to propose to who has random ones; None where there are none."""
        return None

    @abstractmethod
    def network(self) -> Backbone:
        """The backbone with random weights and plain batch normalisation."""

    def build(self) -> Backbone:
        """The backbone as the keys say, with its pretrained weights if it has any.

        Raises:
            UserError: there are no such weights, or they do not fit this network.
        """
        backbone = self.network()
        set_norms(backbone, self.norm, self.norm_eps)
        use_quick_depthwise(backbone)
        if self.weights is not None:
            self.load_weights(backbone, self.weights)
        backbone.start_at(self.finest_map)
        backbone.freeze(self.frozen_stages)
        return backbone

    def load_weights(self, backbone: Backbone, weights: str) -> None:
        """Load pretrained weights of the whole network that the backbone is a part of.

        Raises:
            UserError: there are no such weights, or they do not fit this network.
        """
        load_pretrained(backbone, name=self.name, weights=weights, classifier=self.classifier)

    @property
    def expected_pixels(self) -> Pixels | None:
        """What the weights were trained on; None without any, or where a file does not say it."""
        if self.weights is None:
            return None
        is_file = is_weight_file(self.weights)
        return pixels_of_file(Path(self.weights)) if is_file else IMAGENET

    @property
    def default_pixels(self) -> Pixels | None:
        """What `preprocess` makes of the pixels where a config says nothing else; None: ImageNet's.

        It is known where `expected_pixels` is; a kind that knows more says it here.
        """
        return self.expected_pixels

    def origin(self) -> WeightOrigin | None:
        """Where the pretrained weights are from, once they are loaded; None without any."""
        return None if self.weights is None else origin_of(self.name, self.weights)

    def without_weights(self) -> Self:
        """The same backbone with random weights: for one whose weights are loaded afterwards."""
        return self.model_copy(update={"weights": None})
