from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import get_args

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from retina.configuration import ConfigError, validate
from retina.errors import UserError
from retina.modeling.backbones import FeatureSpec, ResNetConfig
from retina.modeling.backbones.resnet import ResNet, ResNetName
from retina.modeling.normalization import FrozenBatchNorm2d

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def randomise_norms(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for layer in module.modules():
        if hasattr(layer, "running_var"):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.3, 1.5)
            layer.weight.data.uniform_(0.5, 1.0)
            layer.bias.data.normal_(std=0.1)


@pytest.mark.parametrize("name", get_args(ResNetName))
def test_every_resnet_gives_maps_of_the_announced_shape(name: ResNetName) -> None:
    with torch.device("meta"):  # shapes are all that matters here
        backbone = ResNetConfig(name=name).build()
        maps = backbone(torch.zeros(1, 3, 128, 192))
    channels = (128, 256, 512) if name in ("resnet18", "resnet34") else (512, 1024, 2048)
    assert backbone.feature_specs == tuple(
        FeatureSpec(width, stride) for width, stride in zip(channels, (8, 16, 32), strict=True)
    )
    for spec, feature_map in zip(backbone.feature_specs, maps, strict=True):
        assert feature_map.shape == (1, spec.channels, 128 // spec.stride, 192 // spec.stride)


def test_maps_are_those_of_the_torchvision_network() -> None:
    network = torchvision.models.resnet18(weights=None)
    randomise_norms(network, 1)
    backbone = ResNetConfig(name="resnet18").build()
    state_dict = network.state_dict()
    backbone.load_state_dict({k: v for k, v in state_dict.items() if not k.startswith("fc.")})
    network.eval()
    backbone.eval()
    stem = network.maxpool(network.relu(network.bn1(network.conv1(IMAGES))))
    c3 = network.layer2(network.layer1(stem))
    c4 = network.layer3(c3)
    for ours, reference in zip(backbone(IMAGES), (c3, c4, network.layer4(c4)), strict=True):
        assert torch.equal(ours, reference)


def state_of(modules: list[nn.Module]) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value.clone()
        for number, module in enumerate(modules)
        for name, value in module.state_dict().items()
    }


@pytest.mark.parametrize("norm", ["batch", "frozen", "sync"])
@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 5])
def test_frozen_stages_stay_as_they_are_through_a_training_step(
    norm: str, frozen_stages: int
) -> None:
    config = {"name": "resnet18", "norm": norm, "frozen_stages": frozen_stages}
    backbone: ResNet = validate(config, ResNetConfig, source="test").build()
    stages: list[list[nn.Module]] = [
        [backbone.conv1, backbone.bn1],
        *(
            [layer]
            for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
        ),
    ]
    before = [state_of(stage) for stage in stages]
    backbone.train()
    images = IMAGES.clone().requires_grad_(frozen_stages == 0)
    loss = sum(feature_map.mean() for feature_map in backbone(images))
    if frozen_stages < 5:
        loss.backward()
        learning = [p for p in backbone.parameters() if p.requires_grad]
        assert all(parameter.grad is not None for parameter in learning)
        torch.optim.SGD(learning, lr=10.0).step()
    else:
        assert not loss.requires_grad
    for number, (stage, old) in enumerate(zip(stages, before, strict=True)):
        new = state_of(stage)
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        if number < frozen_stages:
            assert changed == set()
            assert all(p.grad is None for module in stage for p in module.parameters())
        else:
            assert any(name.endswith("weight") for name in changed)
            statistics = any(name.endswith("running_mean") for name in changed)
            assert statistics == (norm != "frozen")


def test_train_does_not_thaw_a_frozen_stage_below_another_module() -> None:
    backbone = ResNetConfig(name="resnet18", frozen_stages=2).build()
    parent = nn.Sequential(backbone)
    parent.eval()
    parent.train()
    assert not backbone.bn1.training
    assert not backbone.layer1.training
    assert backbone.layer2.training
    assert not any(p.requires_grad for p in backbone.layer1.parameters())


def test_epsilon_reaches_every_norm() -> None:
    for norm in ("batch", "frozen"):
        backbone = ResNetConfig(name="resnet18", norm=norm, norm_eps=0.25).build()
        epsilons = [m.eps for m in backbone.modules() if hasattr(m, "running_var")]
        assert epsilons == [0.25] * 20


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3])
def test_frozen_norm_gives_torchvisions_values_and_gradients(eps: float) -> None:
    ours, reference = FrozenBatchNorm2d(7, eps=eps), TorchvisionFrozenBatchNorm2d(7, eps=eps)
    randomise_norms(reference, 3)
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(2, 7, 5, 6)
    assert torch.equal(ours(x), reference(x))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(a) ** 2).sum().backward()
    (reference(b) ** 2).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-5)


def test_frozen_norm_keeps_the_precision_of_its_input() -> None:
    norm = FrozenBatchNorm2d(4)
    randomise_norms(norm, 4)
    x = torch.randn(1, 4, 3, 3)
    for needs_grad in (False, True):
        half = x.bfloat16().requires_grad_(needs_grad)
        result = norm(half)
        assert result.dtype == torch.bfloat16
        torch.testing.assert_close(result.float(), norm(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    network = torchvision.models.resnet18(weights=None)
    randomise_norms(network, 5)
    path = tmp_path / f"backbone{suffix}"
    if suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    for norm in ("batch", "frozen"):
        backbone = ResNetConfig(name="resnet18", weights=str(path), norm=norm).build()
        own = backbone.state_dict()
        for key, value in network.state_dict().items():
            if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
                assert torch.equal(own[key], value)


def test_weights_by_torchvisions_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torchvision takes a file of the right name from its cache instead of fetching it.
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    network = torchvision.models.resnet18(weights=None)
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    for name in ("IMAGENET1K_V1", "DEFAULT"):
        backbone = ResNetConfig(name="resnet18", weights=name).build()
        assert torch.equal(
            backbone.layer4.state_dict()["1.conv2.weight"], network.layer4[1].conv2.weight
        )


def test_unknown_weights_are_answered_with_the_known_ones() -> None:
    config = ResNetConfig(name="resnet50", weights="IMAGENET1K_V3")
    with pytest.raises(UserError, match="no weights 'IMAGENET1K_V3' for resnet50") as caught:
        config.build()
    assert "IMAGENET1K_V1, IMAGENET1K_V2" in str(caught.value)
    assert "did you mean 'IMAGENET1K_V" in str(caught.value)


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    # urllib keeps the opener, and with it the proxies, of its first use in a process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match="'IMAGENET1K_V1' of resnet34 could not be ") as caught:
        ResNetConfig(name="resnet34", weights="IMAGENET1K_V1").build()
    kept_at = tmp_path / "checkpoints" / "resnet34-b627a593.pth"
    assert f"put it at {kept_at}; or" in str(caught.value)
    assert "--from-scratch" in str(caught.value)
    # What the message says works: the file alone, and no network.
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), kept_at)
    ResNetConfig(name="resnet34", weights="IMAGENET1K_V1").build()


def test_a_damaged_file_in_the_folder_of_downloads_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir()
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    content = path.read_bytes()
    for damaged in (b"", content[:5000], content[:-5000] + b"!!" + content[-4998:]):
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"18-f37072fd\.pth cannot be read as weights"
        ) as caught:
            ResNetConfig(name="resnet18", weights="IMAGENET1K_V1").build()
        assert "Delete it and try again, or put https://" in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r34.pt"
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), path)
    with pytest.raises(
        UserError, match=r"r34\.pt: these weights belong to another network .*unknown"
    ):
        ResNetConfig(name="resnet18", weights=str(path)).build()


def test_a_missing_weight_file_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere/backbone\.pt: no such weight file"):
        ResNetConfig(name="resnet18", weights="nowhere/backbone.pt").build()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "resnet5"}, "did you mean 'resnet50'"),
        ({"frozen_stages": 6}, "frozen_stages: .*less than or equal to 5"),
        ({"norm": "batchnorm"}, "did you mean 'batch'"),
        ({"norm_eps": -1.0}, "norm_eps: .*greater than or equal to 0"),
    ],
)
def test_bad_configs_say_why(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(tree, ResNetConfig, source="test")
