"""What a config says of a network of timm."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from retina.errors import UserError
from retina.modeling.backbones.backbone import Backbone, BackboneConfig
from retina.modeling.backbones.timm.network import TimmBackbone
from retina.modeling.backbones.timm.weights import (
    DEFAULT,
    MissingTimmError,
    about_weights,
    check_name,
    fetch_weights,
    kept_weights,
    tagged,
    tags_of,
)
from retina.modeling.loading import StateDict, read_state_dict
from retina.modeling.pixels import Pixels
from retina.modeling.pretrained import (
    UNKNOWN,
    WeightOrigin,
    is_weight_file,
    origin_of_file,
    pixels_of_file,
    sha256_of,
)


class TimmConfig(BackboneConfig):
    """A network of timm without its classifier."""

    kind: Literal["timm"] = "timm"
    name: str = "resnet50"
    """timm's name of the network, with or without the tag of its weights (`resnet50.a1_in1k`). Its
    normalisation of pixels is taken into `preprocess` unless the config says another."""
    weights: str | None = None
    """`DEFAULT` (the weights of the name's tag, else timm's first choice), a tag (`a1_in1k`), or a
    local file (`.safetensors`, `.pt`, `.pth`) with timm's entries, whose classifier is left out;
    null starts from random weights. timm fetches what has a tag, once."""
    norm_eps: Annotated[float, Field(ge=0)] | None = None
    """Added to the variance by batch normalisation; null keeps what the network is made with."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How often the last residual block is skipped in training, the others less the earlier they
    are (stochastic depth)."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        """Where timm is missing, a config can still be read; its backbone cannot be built."""
        with contextlib.suppress(MissingTimmError):
            check_name(name)
        return name

    @property
    def usual_weights(self) -> str | None:
        """`DEFAULT`, where timm has weights of this network."""
        try:
            return DEFAULT if tags_of(self.name.partition(".")[0]) else None
        except MissingTimmError:
            return None

    def network(self) -> TimmBackbone:
        """The network of timm, initialised as it does."""
        return TimmBackbone(self.name, drop_path_rate=self.drop_path_rate)

    def load_weights(self, backbone: Backbone, weights: str) -> None:
        """Load the entries of timm's classifier that are the backbone's."""
        assert isinstance(backbone, TimmBackbone)
        backbone.load_classifier(self._entries(weights), source=weights)

    @property
    def expected_pixels(self) -> Pixels | None:
        """What the weights were trained on; None without any, or where a file does not say it."""
        if self.weights is None:
            return None
        if is_weight_file(self.weights):
            return pixels_of_file(Path(self.weights))
        return self._usual_pixels()

    @property
    def default_pixels(self) -> Pixels | None:
        """What the weights expect, else what timm's own weights of this network do."""
        return self.expected_pixels or self._usual_pixels()

    def _usual_pixels(self) -> Pixels | None:
        network = self.name.partition(".")[0]
        try:
            is_tag = self.weights in tags_of(network)
            about = about_weights(f"{network}.{self.weights}" if is_tag else self.name)
        except UserError:
            return None  # `build` tells what is wrong
        mean, std = (tuple(values) for values in (about.mean, about.std))
        return Pixels("rgb", mean, std) if len(mean) == len(std) == 3 else None

    def origin(self) -> WeightOrigin | None:
        """Where the weights are from, once they are loaded; None without any."""
        if self.weights is None:
            return None
        if is_weight_file(self.weights):
            return origin_of_file(Path(self.weights))
        about = about_weights(tagged(self.name, self.weights))
        return WeightOrigin(
            name=f"{about.architecture}.{about.tag}",
            source=about.hf_hub_id or about.url or UNKNOWN,
            sha256=sha256_of(kept_weights(about)),
            licence=about.license or UNKNOWN,
        )

    def _entries(self, weights: str) -> StateDict:
        if is_weight_file(weights):
            return read_state_dict(weights)
        return fetch_weights(tagged(self.name, weights))
