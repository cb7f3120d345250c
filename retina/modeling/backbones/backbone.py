"""What every backbone is to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from retina.configuration import Config
from retina.modeling.depthwise import use_quick_depthwise
from retina.modeling.normalization import NormKind, set_norms
from retina.modeling.pixels import IMAGENET, Pixels
from retina.modeling.pretrained import is_weight_file, load_pretrained

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

    channels: tuple[int, int, int, int]
    """Widths of C2, C3, C4 and C5."""

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
        specs = [FeatureSpec(width, 4 << number) for number, width in enumerate(self.channels)]
        return tuple(specs[-self.num_maps :])

    def start_at(self, finest_map: FinestMap) -> None:
        """Give no map that is finer than this."""
        self.num_maps = {"c2": 4, "c3": 3}[finest_map]

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
    norm_eps: Annotated[float, Field(ge=0)] = 1e-5
    """Added to the variance. No state dict says which value its weights were trained with."""
    finest_map: FinestMap = "c3"
    """The finest feature map that is used. `c2` adds a pyramid level of stride 4 (P2) for objects
    of a few pixels: four times as many anchors, and `anchors.sizes` needs one more entry."""

    classifier: ClassVar[str] = "classifier."
    """How the names of the entries of pretrained weights begin that are no part of the backbone."""
    usual_weights: ClassVar[str | None] = None
    """The weights to propose to who has random ones; None where there are none for each name."""

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
            load_pretrained(
                backbone, name=self.name, weights=self.weights, classifier=self.classifier
            )
        backbone.start_at(self.finest_map)
        backbone.freeze(self.frozen_stages)
        return backbone

    @property
    def expected_pixels(self) -> Pixels | None:
        """What the weights were trained on; None where nothing is known: random, or a file's."""
        is_published = self.weights is not None and not is_weight_file(self.weights)
        return IMAGENET if is_published else None

    def without_weights(self) -> Self:
        """The same backbone with random weights: for one whose weights are loaded afterwards."""
        return self.model_copy(update={"weights": None})
