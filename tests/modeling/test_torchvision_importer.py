from __future__ import annotations

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

VARIANTS: tuple[Variant, ...] = ("v1", "v2")


@pytest.fixture(scope="module")
def networks(torchvision_reference: ModuleType) -> dict[str, nn.Module]:
    return {v: torchvision_reference.random_torchvision(v, seed=0) for v in VARIANTS}


def all_differences(
    reference: ModuleType, network: nn.Module, variant: Variant, seed: int, **settings: object
) -> tuple[list[str], list[int]]:
    """What differs on a batch of three images of different sizes, and how much was compared."""
    images = reference.random_images(reference.IMAGE_SIZES, seed)
    expected = reference.detect_with_torchvision(network, images)
    ours = reference.detect_with_ours(network, images, variant, **settings)
    problems = [
        problem
        for one, other in zip(ours, expected, strict=True)
        for problem in reference.differences(one, other)
    ]
    return problems, [len(detections) for detections in expected]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_random_weights_detect_what_torchvision_detects(
    variant: Variant, norm: str, networks: dict[str, nn.Module], torchvision_reference: ModuleType
) -> None:
    problems, counts = all_differences(
        torchvision_reference, networks[variant], variant, seed=1, norm=norm
    )
    assert problems == []
    assert counts == [300, 300, 300]


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_around_the_threshold_detect_what_torchvision_detects(
    variant: Variant, torchvision_reference: ModuleType
) -> None:
    network = torchvision_reference.random_torchvision(variant, seed=2, mean_logit=-6.0)
    problems, counts = all_differences(torchvision_reference, network, variant, seed=3)
    assert problems == []
    assert all(0 < count < 300 for count in counts)


@pytest.mark.parametrize(
    ("variant", "optimizer", "lr"), [("v1", "sgd", 0.01), ("v2", "adamw", 1e-4)]
)
def test_trained_weights_detect_what_torchvision_detects(
    variant: Variant, optimizer: str, lr: float, torchvision_reference: ModuleType
) -> None:
    network = torchvision_reference.random_torchvision(variant, seed=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torchvision_reference.train_torchvision(network, steps=3, optimizer=optimizer, lr=lr)
    changed = [n for n, value in network.state_dict().items() if not torch.equal(value, before[n])]
    assert len(changed) == len(before)
    problems, counts = all_differences(torchvision_reference, network, variant, seed=5)
    assert problems == []
    assert min(counts) > 50


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("norm_eps", [1e-3, 0.0])
def test_a_wrong_epsilon_is_noticed(
    variant: Variant,
    norm_eps: float,
    networks: dict[str, nn.Module],
    torchvision_reference: ModuleType,
) -> None:
    problems, counts = all_differences(
        torchvision_reference, networks[variant], variant, seed=1, norm_eps=norm_eps
    )
    assert len(problems) > 0.3 * sum(counts)


def test_the_comparison_notices_every_kind_of_difference(
    networks: dict[str, nn.Module], torchvision_reference: ModuleType
) -> None:
    images = torchvision_reference.random_images([(90, 120)], 0)
    (found,) = torchvision_reference.detect_with_torchvision(networks["v1"], images)
    differences = torchvision_reference.differences
    kind = type(found)
    boxes, scores, labels = found.boxes, found.scores, found.labels
    far = torch.zeros_like(boxes)
    far[7, 2] = 0.02
    assert differences(found, found) == []
    assert len(differences(kind(boxes + far, scores, labels), found)) == 1
    assert len(differences(kind(boxes, scores + 2e-5, labels), found)) == len(found)
    assert len(differences(kind(boxes, scores, labels + 1), found)) == len(found)
    assert differences(found.above(float(scores[-2])), found) != []
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
        UserError, match=r"RetinaNet v1 \(it looks like v2\): .* differences: .*unknown"
    ):
        convert_state_dict(networks["v2"].state_dict(), "v1")
    with pytest.raises(
        UserError, match=r"RetinaNet v2 \(it looks like v1\): .* differences: .*missing"
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
