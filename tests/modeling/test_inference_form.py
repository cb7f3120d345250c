"""A detector made for running only gives what the plain one gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from retina.configuration import validate
from retina.devices import autocast
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.inference_form import InferenceForm, in_form, usual_form
from retina.structures import DensePredictions

CPU = torch.device("cpu")


def detector(backbone: dict[str, object], **parts: object) -> RetinaNet:
    """With norms that change much, as trained ones do."""
    torch.manual_seed(0)
    tree = {"backbone": {"weights": None} | backbone, "pyramid": {"channels": 32}, **parts}
    made = validate(tree, ModelConfig, source="test").build(3)
    for module in made.modules():
        if getattr(module, "running_var", None) is not None:
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    for _, conv in convs(made.head.classification):
        nn.init.kaiming_normal_(conv.weight)
    spread = run(made.eval(), torch.randn(1, 3, 96, 128)).class_logits[0].std()
    made.head.classification.output.weight.data.div_(spread)  # of the logits, which is then 1
    return made


def run(network: RetinaNet, images: torch.Tensor) -> DensePredictions:
    with torch.no_grad():
        found: DensePredictions = network(images)
    return found


def largest_gap(one: DensePredictions, other: DensePredictions) -> float:
    """Of the scores."""
    pairs = zip(one.class_logits, other.class_logits, strict=True)
    return max(float((a.sigmoid() - b.sigmoid()).abs().max()) for a, b in pairs)


def norms(network: nn.Module) -> int:
    return sum(getattr(module, "running_var", None) is not None for module in network.modules())


TIMM = {"kind": "timm", "name": "efficientnet_lite0"}


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("backbone", [{"name": "resnet18"}, {"name": "resnet50"}, TIMM])
def test_folding_leaves_no_norm_and_the_same_predictions(
    backbone: dict[str, object], norm: str
) -> None:
    if backbone is TIMM:
        pytest.importorskip("timm")
    plain = detector(backbone | {"norm": norm})
    made = in_form(plain, "folded", torch.float32, CPU)
    assert norms(plain.backbone) > 0
    assert norms(made.backbone) == 0
    images = torch.randn(2, 3, 96, 128)
    expected = run(plain, images)
    assert float(expected.class_logits[0].std()) > 0.1
    assert largest_gap(run(made, images), expected) < 1e-5
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_a_norm_without_a_convolution_before_it_stays() -> None:
    """DenseNet's norms come before their convolutions: half of them have none before them."""
    pytest.importorskip("timm")
    plain = detector({"kind": "timm", "name": "densenet121", "norm": "frozen"})
    made = in_form(plain, "folded", torch.float32, CPU)
    assert 0 < norms(made.backbone) < norms(plain.backbone)
    images = torch.randn(1, 3, 64, 96)
    assert largest_gap(run(made, images), run(plain, images)) < 1e-5


class ReadTwice(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.block(x) + self.block.conv1(x)
        return added


def test_a_convolution_that_others_read_too_keeps_its_norm() -> None:
    plain = detector({"name": "resnet18"})
    plain.backbone.layer1[0] = ReadTwice(plain.backbone.layer1[0])  # type: ignore
    made = in_form(plain, "folded", torch.float32, CPU)
    images = torch.randn(1, 3, 64, 64)
    assert norms(made.backbone) == norms(plain.backbone)
    assert largest_gap(run(made, images), run(plain, images)) < 1e-5


@pytest.mark.parametrize("head", [{}, {"norm": "group", "num_groups": 8}, {"convs": "separable"}])
def test_in_bf16_it_is_as_near_as_autocast_is(head: dict[str, object]) -> None:
    plain = detector({"name": "resnet18"}, head=head, pyramid={"channels": 32, "p6_from": "p5"})
    made = in_form(plain, "folded", torch.bfloat16, CPU)
    kinds = {name: conv.weight.dtype for name, conv in convs(made)}
    in_float32 = {name for name, kind in kinds.items() if kind == torch.float32}
    assert in_float32 == {"pyramid.fpn.extra_blocks.p6", "pyramid.fpn.extra_blocks.p7"}
    images = torch.randn(2, 3, 96, 128)
    exact = run(plain, images)
    with autocast("bf16", CPU):
        gap, of_autocast = (largest_gap(run(network, images), exact) for network in (made, plain))
    assert gap < 1.5 * of_autocast < 0.1


def convs(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, one) for name, one in network.named_modules() if isinstance(one, nn.Conv2d)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_it_gives_the_same_at_every_size(precision: str) -> None:
    plain = detector({"name": "resnet18"})
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    forms: tuple[InferenceForm, ...] = ("folded", "compiled")
    eager, compiled = (in_form(plain, form, dtype, CPU) for form in forms)
    for shape in [(1, 3, 64, 96), (2, 3, 96, 64), (1, 3, 64, 96), (3, 3, 128, 128)]:
        images = torch.randn(*shape)
        exact = run(plain, images)
        with autocast(precision, CPU):  # type: ignore[arg-type]
            gap, of_eager = (
                largest_gap(run(network, images), exact) for network in (compiled, eager)
            )
        assert gap < (1e-5 if precision == "fp32" else max(1.5 * of_eager, 1e-3))


def test_weights_that_folding_would_make_infinite_stay() -> None:
    plain = detector({"name": "resnet18"})
    norm = plain.backbone.layer1[0].bn1  # type: ignore[index]
    norm.running_var.fill_(1e-16)
    norm.eps = 0.0
    assert norms(in_form(plain, "folded", torch.float16, CPU).backbone) == norms(plain.backbone)
    assert norms(in_form(plain, "folded", torch.float32, CPU).backbone) == 0


def test_the_usual_form() -> None:
    assert usual_form("fp32") == "plain"
    assert usual_form("bf16") == "folded"
    assert usual_form("fp32", compiled=True) == "compiled"


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"--compile: there is no C\+\+ compiler no-such-compiler"):
        in_form(detector({"name": "resnet18"}), "compiled", torch.float32, CPU)
