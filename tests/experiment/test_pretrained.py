"""What pretrained weights bring along: the pixels they expect, and where they are from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from retina.artifact import load_artifact
from retina.configuration import shipped_configs, to_yaml
from retina.experiment import ExperimentConfig, load_experiment
from retina.experiment.parts import build_detector, find_origin
from retina.modeling.pixels import IMAGENET, Pixels
from retina.modeling.pretrained import WeightOrigin
from retina.structures import Categories
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.small_detector import SmallBackbone  # type: ignore[import-not-found]

Load = Callable[..., ExperimentConfig]
ABOUT = {
    "source": "example.org/weights",
    "licence": "MIT",
    "pixel_mean": "[0.1, 0.2, 0.3]",
    "pixel_std": "[0.4, 0.5, 0.6]",
}
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that tells where it is from and what it expects."""
    path = tmp_path / "weights.safetensors"
    save_file(SmallBackbone().state_dict(), path, metadata=ABOUT)
    return path


@pytest.fixture
def load(tiny_config: Path, tmp_path: Path) -> Load:
    return lambda *overrides: load_experiment(
        tiny_config, [f"output_dir={tmp_path / 'run'}", *overrides]
    )


def timm(name: str, rest: str = "") -> str:
    return f"model.backbone={{kind: timm, name: {name}{rest}}}"


def test_preprocess_takes_the_pixels_of_the_backbone(load: Load, weights: Path) -> None:
    def pixels(*overrides: str) -> Pixels:
        return load(*overrides).preprocess.pixels

    assert pixels() == IMAGENET
    assert pixels("model.backbone.weights=IMAGENET1K_V1") == IMAGENET
    assert pixels(timm("resnet18")) == IMAGENET
    assert pixels(timm("tf_efficientnet_lite0")) == Pixels("rgb", HALF, HALF)
    assert pixels(f"model.backbone.weights={weights}") == Pixels(
        "rgb", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )


def test_what_a_config_or_a_preset_says_stays(load: Load) -> None:
    network = timm("tf_efficientnet_lite0")
    own = load(network, "preprocess.mean=[0.1, 0.1, 0.1]", "preprocess.channel_order=bgr")
    assert own.preprocess.pixels == Pixels("bgr", (0.1, 0.1, 0.1), HALF)
    assert load(network, "preset=torchvision_v2").preprocess.pixels == IMAGENET
    zero = load(network, f"preprocess.mean={list(IMAGENET.mean)}")
    assert zero.preprocess.mean == IMAGENET.mean  # the default, said on purpose


def test_the_resolved_config_says_the_same(load: Load, tmp_path: Path) -> None:
    config = load(timm("tf_efficientnet_lite0"))
    written = to_yaml(config)
    assert yaml.safe_load(written)["preprocess"]["mean"] == list(HALF)
    (tmp_path / "resolved.yaml").write_text(written)
    assert load_experiment(tmp_path / "resolved.yaml") == config
    assert config.from_scratch().preprocess == config.preprocess


def test_a_detector_keeps_where_its_weights_are_from(
    invoke: Invoke, tiny_config: Path, weights: Path, tmp_path: Path
) -> None:
    origin = WeightOrigin(
        name="weights.safetensors",
        source="example.org/weights",
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        licence="MIT",
    )

    def train(folder: str, *rest: str) -> Path:
        output = tmp_path / folder
        words = ("training.evaluate_every_epochs=2", f"output_dir={output}", *rest)
        done = invoke("train", tiny_config, *words)
        assert done.code == 0, done.err
        return output / "checkpoints" / "last.safetensors"

    start = f"model.backbone.weights={weights}"
    first = train("first", start, "training.max_steps=1")
    assert load_artifact(first).config.pretrained == origin
    weights.unlink()  # whoever resumes may not have it any more
    pixels = "preprocess={mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6]}"
    train("first", start, "training.max_steps=2", pixels, "--resume")
    assert load_artifact(first).training["step"] == 2
    assert load_artifact(first).config.pretrained == origin
    fine = train("fine", f"model.initialize_from={first}", "training.max_steps=1")
    assert load_artifact(fine).config.pretrained == origin
    plain = train("plain", "training.max_steps=1")
    assert load_artifact(plain).config.pretrained is None

    told = invoke("info", fine)
    assert told.code == 0
    words = " ".join(told.out.split())
    assert words.startswith(f"file {fine}, ")
    assert "network small small5, pyramid of 16 channels, " in words
    assert "classes 10: disc, " in words
    assert "input 64–96 pixels, rgb, mean 0.485, 0.456, 0.406, std" in words
    assert "training step 1" in words
    assert f"pretrained {origin.describe()} " in words
    assert "licence: MIT" in words
    assert "pretrained nothing is kept" in " ".join(invoke("info", plain).out.split())


def test_weights_of_another_program_are_known_by_their_file(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pth"
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, path)
    origin = find_origin(load(f"model.initialize_from={path}"))
    assert origin is not None
    assert (origin.name, origin.source, origin.licence) == ("theirs.pth", "theirs.pth", "unknown")
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_torchvisions_weights_say_their_address(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    keys = "{kind: resnet, name: resnet18, weights: DEFAULT}"
    origin = load(f"model.backbone={keys}").model.backbone.origin()
    assert origin is not None
    assert origin.name == "resnet18.IMAGENET1K_V1"
    assert origin.source == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert origin.licence == "BSD-3-Clause (torchvision), trained on ImageNet"
    assert origin.sha256 is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"weights")
    again = load(f"model.backbone={keys}").model.backbone.origin()
    assert again is not None
    assert again.sha256 == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("name", ["my_data", "my_data_cpu"])
def test_the_templates_start_from_pretrained_weights(name: str) -> None:
    config = load_experiment(f"{name}.yaml")
    backbone = config.model.backbone
    assert (backbone.weights is not None, backbone.frozen_stages) == (True, 2)
    start = config.from_scratch().model.backbone
    assert (start.weights, start.frozen_stages) == (None, 0)


def test_the_head_for_your_own_data_starts_from_a_coco_detector(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """The outputs are new; backbone, pyramid and the convolutions of the head are torchvision's."""
    torch.manual_seed(0)
    published = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    start = tmp_path / "theirs.pth"
    torch.save(published, start)
    splits = [
        f"dataset.{split}.{key}={synthetic_data / split / name}"
        for split in ("train", "validation")
        for key, name in (("images", "images"), ("annotations", "annotations.json"))
    ]
    config = load_experiment(
        shipped_configs() / "my_data.yaml",
        [*splits, f"model.initialize_from={start}", "model.head.num_groups=32"],
    )
    detector, report, _ = build_detector(config, Categories(("cat", "dog"), (1, 2)))
    assert report is not None
    outputs = {f"head.{name}.output.{part}" for name in ("classification", "box_regression")
               for part in ("weight", "bias")}  # fmt: skip
    assert {*report.missing, *(one.name for one in report.mismatched)} == (
        outputs | {"head.level_scales"}
    )
    own = detector.state_dict()
    for name, theirs in (
        ("backbone.layer3.2.conv2.weight", "backbone.body.layer3.2.conv2.weight"),
        ("head.classification.convs.2.0.weight", "head.classification_head.conv.2.0.weight"),
        ("head.box_regression.convs.3.1.bias", "head.regression_head.conv.3.1.bias"),
    ):
        assert torch.equal(own[name], published[theirs]), name
