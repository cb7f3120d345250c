from __future__ import annotations

import copy
import re
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from retina.errors import UserError
from retina.modeling.importers.torchvision import (
    Variant,
    convert_state_dict,
    model_config,
    num_classes_of,
)
from retina.modeling.loading import load_matching
from retina.structures import Detections

VARIANTS: tuple[Variant, ...] = ("v1", "v2")


@pytest.fixture(scope="module")
def networks(torchvision_reference: ModuleType) -> dict[str, nn.Module]:
    return {v: torchvision_reference.random_torchvision(v, seed=0) for v in VARIANTS}


@pytest.fixture(scope="module")
def images(torchvision_reference: ModuleType) -> list[Tensor]:
    return torchvision_reference.random_images(torchvision_reference.IMAGE_SIZES, 1)


@pytest.fixture(scope="module")
def expected(
    networks: dict[str, nn.Module], images: list[Tensor], torchvision_reference: ModuleType
) -> dict[str, list[Detections]]:
    return {
        variant: torchvision_reference.detect_with_torchvision(network, images)
        for variant, network in networks.items()
    }


def all_differences(
    reference: ModuleType, ours: list[Detections], expected: list[Detections]
) -> list[str]:
    return [
        problem
        for one, other in zip(ours, expected, strict=True)
        for problem in reference.differences(one, other)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_weights_detect_what_torchvision_detects(
    variant: Variant,
    networks: dict[str, nn.Module],
    images: list[Tensor],
    expected: dict[str, list[Detections]],
    torchvision_reference: ModuleType,
) -> None:
    ours = torchvision_reference.detect_with_ours(networks[variant], images, variant)
    assert all_differences(torchvision_reference, ours, expected[variant]) == []
    assert min(len(detections) for detections in expected[variant]) > 250
    scores = torch.cat([detections.scores for detections in expected[variant]])
    assert float(scores.max()) < 0.995


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_around_the_threshold_detect_what_torchvision_detects(
    variant: Variant,
    networks: dict[str, nn.Module],
    images: list[Tensor],
    torchvision_reference: ModuleType,
) -> None:
    network = copy.deepcopy(networks[variant])
    with torch.no_grad():
        network.head.classification_head.cls_logits.bias.sub_(4.0)
    expected = torchvision_reference.detect_with_torchvision(network, images)
    ours = torchvision_reference.detect_with_ours(network, images, variant)
    assert all_differences(torchvision_reference, ours, expected) == []
    assert all(0 < len(detections) < 300 for detections in expected)


def test_a_frozen_backbone_without_epsilon_detects_what_torchvision_detects(
    networks: dict[str, nn.Module], images: list[Tensor], torchvision_reference: ModuleType
) -> None:
    network = torchvision_reference.with_frozen_norms(copy.deepcopy(networks["v1"]), eps=0.0)
    expected = torchvision_reference.detect_with_torchvision(network, images)
    ours = torchvision_reference.detect_with_ours(network, images, "v1", norm_eps=0.0)
    assert all_differences(torchvision_reference, ours, expected) == []
    wrong = torchvision_reference.detect_with_ours(network, images, "v1", norm_eps=1e-5)
    assert len(all_differences(torchvision_reference, wrong, expected)) > 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "optimizer", "lr"),
    [("v1", "sgd", 0.01), ("v2", "adamw", 1e-4)],
)
def test_trained_weights_detect_what_torchvision_detects(
    variant: Variant,
    optimizer: str,
    lr: float,
    networks: dict[str, nn.Module],
    images: list[Tensor],
    torchvision_reference: ModuleType,
) -> None:
    network = copy.deepcopy(networks[variant])
    torchvision_reference.train_torchvision(network, steps=2, optimizer=optimizer, lr=lr)
    before = networks[variant].state_dict()
    unchanged = [n for n, value in network.state_dict().items() if torch.equal(value, before[n])]
    assert unchanged == []
    expected = torchvision_reference.detect_with_torchvision(network, images)
    ours = torchvision_reference.detect_with_ours(network, images, variant)
    assert all_differences(torchvision_reference, ours, expected) == []
    assert min(len(detections) for detections in expected) > 50


@pytest.mark.parametrize(("variant", "norm_eps"), [("v1", 0.0), ("v2", 1e-3)])
def test_a_wrong_epsilon_is_noticed(
    variant: Variant,
    norm_eps: float,
    networks: dict[str, nn.Module],
    images: list[Tensor],
    expected: dict[str, list[Detections]],
    torchvision_reference: ModuleType,
) -> None:
    ours = torchvision_reference.detect_with_ours(
        networks[variant], images, variant, norm_eps=norm_eps
    )
    assert len(all_differences(torchvision_reference, ours, expected[variant])) > 300


def test_the_backbones_norms_are_live_if_their_counters_say_so(
    networks: dict[str, nn.Module],
) -> None:
    state = networks["v1"].state_dict()
    without_counters = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    assert model_config("v1", state_dict=state).backbone.norm == "batch"
    assert model_config("v1", state_dict=without_counters).backbone.norm == "frozen"
    assert model_config("v1").backbone.norm == "frozen"
    assert model_config("v2").backbone.norm == "batch"


def test_the_comparison_notices_every_kind_of_difference(
    expected: dict[str, list[Detections]], torchvision_reference: ModuleType
) -> None:
    found = expected["v1"][0]
    differences = torchvision_reference.differences
    kind = type(found)
    boxes, scores, labels = found.boxes, found.scores, found.labels
    far = torch.zeros_like(boxes)
    far[7, 2] = 0.02
    assert differences(found, found) == []
    assert len(differences(kind(boxes + far, scores, labels), found)) == 1
    assert len(differences(kind(boxes, scores + 2e-5, labels), found)) == len(found)
    assert len(differences(kind(boxes, scores, labels + 1), found)) == len(found)
    assert differences(found.at_least(float(scores[-2])), found) != []
    turned = kind(boxes.flip(0), scores.flip(0), labels.flip(0))
    assert len(differences(turned, found)) > 0.9 * len(found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_arrives(variant: Variant, networks: dict[str, nn.Module]) -> None:
    state = networks[variant].state_dict()
    converted = convert_state_dict(state, variant)
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == 53
    assert len(converted) == len(state) - len(counters)
    report = load_matching(model_config(variant).build(5), converted)
    assert report.is_complete
    without_counters = {name: value for name, value in state.items() if name not in counters}
    assert convert_state_dict(without_counters, variant).keys() == converted.keys()


def in_the_old_naming(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that torchvision gave before version 0.13."""

    def old(name: str) -> str:
        name = re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
        return re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", name)

    return {old(name): value for name, value in state.items()}


def test_the_naming_of_older_torchvision_versions(networks: dict[str, nn.Module]) -> None:
    state = networks["v1"].state_dict()
    older = in_the_old_naming(state)
    assert "head.classification_head.conv.6.weight" in older
    assert "backbone.fpn.layer_blocks.2.bias" in older
    converted, expected = convert_state_dict(older, "v1"), convert_state_dict(state, "v1")
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_class_count_is_read_from_the_weights(
    variant: Variant, networks: dict[str, nn.Module]
) -> None:
    assert num_classes_of(networks[variant].state_dict()) == 5


def test_the_other_variant_is_named(networks: dict[str, nn.Module]) -> None:
    with pytest.raises(
        UserError, match=r"RetinaNet v1 \(it looks like v2\): 25 differences: .*bias"
    ):
        convert_state_dict(networks["v2"].state_dict(), "v1")
    with pytest.raises(
        UserError, match=r"RetinaNet v2 \(it looks like v1\): 25 differences: .*missing"
    ):
        convert_state_dict(networks["v1"].state_dict(), "v2")


def test_missing_and_misshapen_weights_are_named(networks: dict[str, nn.Module]) -> None:
    state = dict(networks["v1"].state_dict())
    del state["backbone.body.conv1.weight"]
    state["backbone.fpn.extra_blocks.p7.bias"] = torch.zeros(3)
    with pytest.raises(UserError, match="has it another backbone") as caught:
        convert_state_dict(state, "v1")
    assert "2 differences: 'backbone.conv1.weight' is missing" in str(caught.value)
    assert "'pyramid.fpn.extra_blocks.p7.bias' is (3,) instead of (256,)" in str(caught.value)


def test_what_is_no_retinanet_is_refused() -> None:
    with pytest.raises(UserError, match=r"not the state dict of a torchvision RetinaNet.*but a, b"):
        convert_state_dict({"a": torch.zeros(1), "b": torch.zeros(1)}, "v1")
    with pytest.raises(UserError, match="no multiple of the 9 anchors"):
        num_classes_of({"head.classification_head.cls_logits.weight": torch.zeros(10, 256, 3, 3)})


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UserError, match="no RetinaNet variant 'v3': choose v1 or v2"):
        model_config("v3")
