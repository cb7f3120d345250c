"""ResNet and ResNeXt trunks from torchvision (He et al. 2016, Xie et al. 2017)."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
import torchvision
from pydantic import Field
from torch import Tensor, nn

from retina.configuration import Config
from retina.errors import UserError
from retina.modeling.backbones.backbone import Backbone, FeatureSpec
from retina.modeling.loading import StateDict, read_state_dict
from retina.modeling.normalization import NormKind, norm_layer

TrunkName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
]

FinestMap = Literal["c2", "c3"]

_WEIGHT_FILES = (".safetensors", ".pt", ".pth")


class ResNetConfig(Config):
    """A ResNet or ResNeXt without its classifier."""

    kind: Literal["resnet"] = "resnet"
    name: TrunkName = "resnet50"
    """torchvision's name of the trunk."""
    weights: str | None = None
    """torchvision's name of pretrained weights (`IMAGENET1K_V1`), or a local file
    (`.safetensors`, `.pt`, `.pth`) with the same entries; null starts from random weights."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """How many stages never learn: 0 none, 1 the stem, 2 also layer1 … 5 the whole trunk. Their
    normalisation keeps its statistics too."""
    norm: NormKind = "batch"
    """`frozen`: statistics and affine parameters are constants. `batch`: live, per process.
    `sync`: live, over all processes (CUDA only)."""
    norm_eps: Annotated[float, Field(ge=0)] = 1e-5
    """Added to the variance. No state dict says which value its weights were trained with."""
    finest_map: FinestMap = "c3"
    """The finest feature map that is used. `c2` adds a pyramid level of stride 4 (P2) for objects
    of a few pixels: four times as many anchors, and `anchors.sizes` needs one more entry."""

    def build(self) -> ResNet:
        """The trunk, with its pretrained weights if it has any.

        Raises:
            UserError: there are no such weights, or they do not fit this trunk.
        """
        trunk = ResNet(
            name=self.name,
            frozen_stages=self.frozen_stages,
            norm=self.norm,
            norm_eps=self.norm_eps,
            finest_map=self.finest_map,
        )
        if self.weights is not None:
            trunk.load_pretrained(
                pretrained_state_dict(self.name, self.weights), source=self.weights
            )
        return trunk


class ResNet(Backbone):
    """The stem and the four stages of a torchvision ResNet, under torchvision's names.

    Args:
        name: torchvision's name of the network.
        frozen_stages: how many stages never learn, counted from the stem.
        norm: the kind of normalisation.
        norm_eps: added to the variance.
        finest_map: the first of the maps that `forward` gives.
    """

    def __init__(
        self,
        *,
        name: TrunkName,
        frozen_stages: int,
        norm: NormKind,
        norm_eps: float,
        finest_map: FinestMap = "c3",
    ) -> None:
        super().__init__()
        network = torchvision.models.get_model(
            name, weights=None, norm_layer=norm_layer(norm, norm_eps)
        )
        self.conv1: nn.Module = network.conv1
        self.bn1: nn.Module = network.bn1
        self.relu: nn.Module = network.relu
        self.maxpool: nn.Module = network.maxpool
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4
        channels = network.inplanes // 8  # of C2; inplanes are the channels of C5
        self._num_maps = {"c2": 4, "c3": 3}[finest_map]
        specs = tuple(FeatureSpec(channels << i, 4 << i) for i in range(4))
        self._feature_specs = specs[-self._num_maps :]
        self.frozen_stages = frozen_stages
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Width and stride of C3, C4 and C5, and of C2 before them where it is used."""
        return self._feature_specs

    def _frozen_modules(self) -> list[nn.Module]:
        stages = [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4]
        return stages[: self.frozen_stages + 1] if self.frozen_stages else []

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except in the frozen stages: their statistics stay as they are."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps, C5 last, of normalised images ``(B, 3, H, W)``."""
        features = images
        maps: list[Tensor] = []
        stages: tuple[Callable[[Tensor], Tensor], ...] = (
            self._stem,
            self.layer1,
            self.layer2,
            self.layer3,
            self.layer4,
        )
        for number, stage in enumerate(stages, start=1):
            learns = number > self.frozen_stages
            with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                features = stage(features)
            maps.append(features)
        return tuple(maps[-self._num_maps :])

    def _stem(self, images: Tensor) -> Tensor:
        features: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return features

    def load_pretrained(self, state_dict: StateDict, *, source: str) -> None:
        """Load the weights of a whole torchvision network; its classifier is left out.

        Raises:
            UserError: they belong to another network; the message names ``source``.
        """
        trunk = {
            key: value
            for key, value in state_dict.items()
            if not key.startswith("fc.") and not key.endswith(".num_batches_tracked")
        }
        own = {
            key: value
            for key, value in self.state_dict().items()
            if not key.endswith(".num_batches_tracked")
        }
        problems = [
            *(f"{key} is missing" for key in own.keys() - trunk.keys()),
            *(f"{key} is unknown" for key in trunk.keys() - own.keys()),
            *(
                f"{key} is {tuple(trunk[key].shape)}, must be {tuple(own[key].shape)}"
                for key in own.keys() & trunk.keys()
                if own[key].shape != trunk[key].shape
            ),
        ]
        if problems:
            shown = "; ".join(sorted(problems)[:3])
            raise UserError(
                f"{source}: these weights belong to another network than the configured backbone "
                f"({len(problems)} differences: {shown})"
            )
        self.load_state_dict(trunk, strict=False)


def pretrained_state_dict(name: TrunkName, weights: str) -> StateDict:
    """The entries of a local weight file, or of torchvision's weights of that name.

    Raises:
        UserError: there is no such file or name, or it cannot be fetched.
    """
    if weights.endswith(_WEIGHT_FILES) or Path(weights).is_file():
        return read_state_dict(weights)
    known = torchvision.models.get_model_weights(name)
    if weights not in known.__members__:  # also knows DEFAULT, torchvision's name for the newest
        names = list(known.__members__)
        near = difflib.get_close_matches(weights, names, n=1)
        raise UserError(
            f"backbone.weights: torchvision has no weights '{weights}' for {name}"
            f"{f', did you mean {near[0]!r}?' if near else ''} (known: {', '.join(names)}; or give "
            f"a local file ending in {', '.join(_WEIGHT_FILES)})"
        )
    entry = known[weights]
    try:
        state_dict: StateDict = entry.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"backbone.weights: '{weights}' of {name} could not be fetched from {entry.url} "
            f"({error}); give a local file, or null to start from random weights"
        ) from None
    return state_dict
