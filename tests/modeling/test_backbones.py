"""What every backbone promises, for each kind in the list."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retina.errors import UserError
from retina.modeling.backbones import AnyBackboneConfig, BackboneConfig
from retina.modeling.normalization import FrozenBatchNorm2d
from retina.modeling.pixels import IMAGENET
from retina.modeling.pretrained import load_pretrained

KINDS: tuple[type[BackboneConfig], ...] = get_args(AnyBackboneConfig)[1].kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("finest_map", ["c2", "c3"])
def test_maps_are_as_announced(kind: type[BackboneConfig], finest_map: str) -> None:
    with torch.device("meta"):
        backbone = kind.model_validate({"finest_map": finest_map}).build()
        maps = backbone(torch.zeros(1, 3, 128, 192))
    strides = (4, 8, 16, 32) if finest_map == "c2" else (8, 16, 32)
    assert tuple(spec.stride for spec in backbone.feature_specs) == strides
    for spec, feature_map in zip(backbone.feature_specs, maps, strict=True):
        assert feature_map.shape == (1, spec.channels, 128 // spec.stride, 192 // spec.stride)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_every_kind_has_do_what_they_say(kind: type[BackboneConfig]) -> None:
    config = kind.model_validate({"frozen_stages": 5, "norm": "frozen", "norm_eps": 0.5})
    with torch.device("meta"):
        backbone = config.build().train()
    assert len(backbone.stages()) == 5
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert {(type(norm), norm.eps) for norm in norms} <= {(FrozenBatchNorm2d, 0.5)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_weights_expect(kind: type[BackboneConfig]) -> None:
    def pixels(weights: str | None) -> object:
        return kind.model_validate({"weights": weights}).expected_pixels

    assert pixels("IMAGENET1K_V1") == IMAGENET
    assert pixels(None) is None
    assert pixels("mine.safetensors") is None
    assert kind.model_validate({"weights": "x.pt"}).without_weights() == kind()


def test_pretrained_weights_need_no_network_of_torchvision(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    entries = {name: value + 1 for name, value in network.state_dict().items()}
    path = tmp_path / "mine.safetensors"
    save_file({**entries, "top.weight": torch.zeros(2)}, path)
    load_pretrained(network, name="mine", weights=str(path), classifier="top.")
    assert torch.equal(network[0].weight, entries["0.weight"])
    assert int(network[1].num_batches_tracked) == 0  # no weight: it is left out
    with pytest.raises(UserError, match=r"mine\.safetensors: these .* 'top\.weight' is unknown"):
        load_pretrained(network, name="mine", weights=str(path), classifier="fc.")
    with pytest.raises(UserError, match=r"no weights 'V1' for mine \(known: none; or give a local"):
        load_pretrained(network, name="mine", weights="V1", classifier="fc.")
