"""What every backbone promises, and that a new one is a file and its line in the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
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
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

KINDS: tuple[type[BackboneConfig], ...] = get_args(AnyBackboneConfig)[1].kinds

TOY = '''
"""Five convolutions."""

from typing import Literal

from torch import nn

from retina.modeling.backbones.backbone import Backbone, BackboneConfig


class ToyConfig(BackboneConfig):
    """The smallest backbone."""

    kind: Literal["toy"] = "toy"
    name: Literal["toy5"] = "toy5"

    def network(self):
        return Toy()


class Toy(Backbone):
    """A convolution and a normalisation for each stage."""

    channels = (8, 8, 8, 8)

    def __init__(self):
        super().__init__()
        widths = ((3, 4), (4, 8), (8, 8), (8, 8), (8, 8))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in widths)
        self.relu = nn.ReLU()

    def stages(self):
        return [(conv, norm, self.relu) for conv, norm in zip(self.convs, self.norms)]
'''
IMPORT = "from retina.modeling.backbones.resnet import ResNetConfig\n"
ENTRY = "        ResNetConfig,\n"


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


@pytest.fixture
def with_toy(tmp_path: Path) -> Callable[..., str]:
    """Runs the command line of a copy of the package with the toy in the list."""
    package = tmp_path / "copy" / "retina"
    shutil.copytree(
        REPOSITORY / "retina", package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    backbones = package / "modeling" / "backbones"
    (backbones / "toy.py").write_text(TOY)
    registry = (backbones / "__init__.py").read_text()
    for line in (IMPORT, ENTRY):
        assert line in registry
        toy = line.replace("resnet", "toy").replace("ResNet", "Toy")
        registry = registry.replace(line, line + toy)
    (backbones / "__init__.py").write_text(registry)
    shutil.copytree(REPOSITORY / "configs", package / "configs")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "retina", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(package.parent)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_new_backbone_is_a_file_and_its_line_in_the_list(
    with_toy: Callable[..., str], tiny_config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    validation = synthetic_data / "validation"
    config = tmp_path / "toy.yaml"
    config.write_text(
        f"extends: {tiny_config}\noutput_dir: run\ntraining: {{epochs: 1}}\n"
        "model: {backbone: {kind: toy, norm: batch}}\n"
    )
    assert "toy5, 0.0 M parameters" in with_toy("train", config)
    detector = tmp_path / "run" / "checkpoints" / "last.safetensors"
    with_toy(
        "train",
        config,
        "output_dir=finer",
        "model.backbone.finest_map=c2",
        "model.anchors.sizes=[8, 16, 32, 64, 128, 256]",
        f"model.initialize_from={detector}",
        "model.backbone.frozen_stages=2",
    )
    data = ("--images", validation / "images", "--annotations", validation / "annotations.json")
    assert "AP" in with_toy("evaluate", detector, *data)
    with_toy("predict", detector, validation / "images", "--output", tmp_path / "found")
    assert (tmp_path / "found" / "detections.json").is_file()
    report = with_toy("doctor", config, "--quick", "output_dir=other")
    assert "toy5 from random weights" in report
