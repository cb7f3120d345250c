"""A detector of a few thousand weights, and the backbone that makes it small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import nn

from retina.artifact import ArtifactConfig
from retina.configuration import Config, OneOf
from retina.experiment.config import ExperimentConfig, InitializedModelConfig
from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DeltasConfig
from retina.modeling.backbones import Backbone, BackboneConfig
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.head import HeadConfig
from retina.modeling.pyramid import PyramidConfig
from retina.runtime.description import ExportDescription


class SmallBackbone(Backbone):
    """A convolution and a normalisation for each stage; the stem is named as a ResNet's is."""

    channels = (8, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        widths = ((4, 8), (8, 8), (8, 8), (8, 8))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in widths)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        return [(self.conv1, self.bn1), *zip(self.convs, self.norms, strict=True)]


class SmallBackboneConfig(BackboneConfig):
    """In a config, ``model.backbone: {kind: small}``."""

    kind: Literal["small"] = "small"
    name: Literal["small5"] = "small5"

    def network(self) -> SmallBackbone:
        return SmallBackbone()


def small_backbone_listed() -> AbstractContextManager[None]:
    """Let configs name the small backbone."""
    return _backbones(lambda kinds: (*kinds, SmallBackboneConfig))


def small_backbone_unlisted() -> AbstractContextManager[None]:
    """Let configs name only what is shipped, also where the small backbone is listed."""
    return _backbones(lambda kinds: tuple(one for one in kinds if one is not SmallBackboneConfig))


@contextmanager
def _backbones(
    change: Callable[[tuple[type[Config], ...]], tuple[type[Config], ...]],
) -> Iterator[None]:
    (mark,) = (
        mark for mark in ModelConfig.model_fields["backbone"].metadata if isinstance(mark, OneOf)
    )
    before = mark.kinds

    def rebuild(kinds: tuple[type[Config], ...]) -> None:
        mark.kinds = kinds
        for model in (
            ModelConfig,
            InitializedModelConfig,
            ExperimentConfig,
            ArtifactConfig,
            ExportDescription,
        ):
            model.model_rebuild(force=True)

    rebuild(change(before))
    try:
        yield
    finally:
        rebuild(before)


def small_detector(num_classes: int = 2, *, channels: int = 8) -> RetinaNet:
    """The same weights at every call."""
    torch.manual_seed(0)
    backbone = SmallBackbone()
    backbone.start_at("c3")
    pyramid = PyramidConfig(channels=channels).build(backbone.feature_specs)
    anchors = AnchorConfig(sizes=(16.0, 32.0, 64.0, 128.0, 256.0)).build(pyramid.strides)
    head = HeadConfig(num_convs=1, norm="none").build(
        in_channels=channels, num_anchors=anchors.num_per_cell[0], num_classes=num_classes
    )
    return RetinaNet(
        backbone=backbone,
        pyramid=pyramid,
        head=head,
        anchor_generator=anchors,
        box_coder=DeltasConfig().build(),
    )
