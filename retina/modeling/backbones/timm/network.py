"""A network of timm as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from retina.errors import UserError
from retina.modeling.backbones.backbone import Backbone
from retina.modeling.backbones.timm.layout import (
    feature_network,
    layout_of,
    plain,
    stages_of,
    wrapper_of,
)
from retina.modeling.backbones.timm.weights import timm_package
from retina.modeling.loading import described, misfits, without_counters


class TimmBackbone(Backbone):
    """A network of timm that gives its feature maps; its submodules have timm's names.

    timm runs it. The stages only say what is frozen: each ends with the submodule that gives its
    map, and the stem with the last finer map, or before the first stage where there is none.
    """

    def __init__(self, name: str, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        layout = layout_of(name)
        self.name, self.channels = name, layout.channels
        self.is_channels_last = layout.is_channels_last
        self.network: nn.Module = feature_network(
            name, drop_path_rate=drop_path_rate, out_indices=layout.indices
        )
        self._stages = stages_of(self.network, layout)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem and what gives C2 to C5; all in the last where timm runs it in another order."""
        names = ((), (), (), (), ("",)) if self._stages is None else self._stages
        return [[self.network.get_submodule(name) for name in stage] for stage in names]

    def freeze(self, num_stages: int) -> None:
        """Let the first stages never learn.

        Raises:
            UserError: the network is no sequence of stages, so that only all of it can be frozen.
        """
        if self._stages is None and num_stages not in (0, 5):
            raise UserError(
                f"model.backbone.frozen_stages: timm's {self.name} is no sequence of stages; "
                "give 0, or 5 for all of it"
            )
        super().freeze(num_stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps ``(B, channels, H, W)``, C5 last, of images ``(B, 3, H, W)``."""
        maps: Sequence[Tensor] = self.network(images)[-self.num_maps :]
        if self.is_channels_last:  # (B, H, W, C)
            return tuple(one.permute(0, 3, 1, 2) for one in maps)
        return tuple(maps)

    def load_classifier(self, entries: Mapping[str, Tensor], *, source: str) -> None:
        """Load what a classifier's entries have of this network, which must be all of it.

        Args:
            entries: under timm's names; those that only its classifier has are left out.
            source: where they are from, for the message.

        Raises:
            UserError: an entry is missing, unknown, or of another shape.
        """
        with torch.device("meta"):
            classifier = timm_package().create_model(self.name, pretrained=False).state_dict()
        tensors = self.network.state_dict()
        wrapper = wrapper_of(self.network)
        own = {plain(name.removeprefix(wrapper)): name for name in tensors}
        wanted = {name: tensors[own[plain(name)]] for name in classifier if plain(name) in own}
        given = {
            name: value
            for name, value in without_counters(entries).items()
            if name in wanted or name not in classifier
        }
        problems = misfits(without_counters(wanted), given)
        if problems:
            raise UserError(
                f"{source}: these weights belong to another network than timm's {self.name} "
                f"({described(problems)})"
            )
        loaded = {own[plain(name)]: value for name, value in given.items()}
        self.network.load_state_dict(loaded, strict=False)
