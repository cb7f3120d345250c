from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from retina.configuration import (
    ConfigError,
    parse_yaml,
    preset_names,
    read_preset,
    to_yaml,
    validate,
)
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig

SCHEMAS = {"model": ModelConfig, "preprocess": PreprocessConfig, "postprocess": PostprocessConfig}


def field_paths(config: BaseModel) -> set[str]:
    paths = set()
    for name in type(config).model_fields:
        value = getattr(config, name)
        below = field_paths(value) if isinstance(value, BaseModel) else {""}
        paths |= {f"{name}.{path}".rstrip(".") for path in below}
    return paths


def tree_paths(tree: Any) -> set[str]:
    if not isinstance(tree, dict):
        return {""}
    return {
        f"{key}.{path}".rstrip(".") for key, value in tree.items() for path in tree_paths(value)
    }


ONE_ANCHOR = ("gfl", "own_data")
"""The presets with the head of the generalized focal loss."""

OF_THE_BACKBONE = {"mean", "std", "channel_order"}
"""What the presets for one's own data leave to the backbone, which may be any."""


@pytest.mark.parametrize("name", preset_names())
def test_presets_write_out_every_field(name: str) -> None:
    preset = read_preset(name)
    for key, schema in SCHEMAS.items():
        config = validate(preset[key], schema, source=name)
        is_left = key == "preprocess" and name in ("own_data", "retinanet")
        assert tree_paths(preset[key]) == field_paths(config) - (
            OF_THE_BACKBONE if is_left else set()
        )
        assert validate(parse_yaml(to_yaml(config), name), schema, source=name) == config


def test_presets_differ_as_the_references_do() -> None:
    presets = {name: read_preset(name) for name in preset_names()}
    model = {name: preset["model"] for name, preset in presets.items()}
    post = {name: preset["postprocess"] for name, preset in presets.items()}
    assert {n: m["pyramid"]["p6_from"] for n, m in model.items()} == {
        "paper": "c5",
        "torchvision_v1": "p5",
        "torchvision_v2": "c5",
        "detectron2": "c5",
        "gfl": "p5",
        "retinanet": "c5",
        "own_data": "c5",
    }
    assert {n for n, m in model.items() if m["anchors"]["round_sizes"]} == {
        "torchvision_v1",
        "torchvision_v2",
    }
    assert {n for n, m in model.items() if m["head"]["norm"] == "group"} == {
        "torchvision_v2",
        "gfl",
        "retinanet",
        "own_data",
    }
    assert {n for n, m in model.items() if m["backbone"]["norm"] == "batch"} == {"torchvision_v2"}
    assert {n: p["max_detections"] for n, p in post.items()} == {
        "paper": 100,
        "torchvision_v1": 300,
        "torchvision_v2": 300,
        "detectron2": 100,
        "gfl": 100,
        "retinanet": 100,
        "own_data": 100,
    }
    assert presets["detectron2"]["preprocess"]["channel_order"] == "bgr"
    for name in ONE_ANCHOR:
        one_anchor = model.pop(name)
        assert one_anchor["box_coder"] == {"kind": "distribution", "bins": 16, "unit": 0.125}
        assert one_anchor["anchors"]["sizes"] == [8.0 * 8 * 2**level for level in range(5)]
    for tree in model.values():
        assert tree["box_coder"]["max_log_scale"] == math.log(1000 / 16)
        assert tree["anchors"]["sizes"] == [4.0 * 8 * 2**level for level in range(5)]


@pytest.mark.parametrize("name", preset_names())
def test_presets_build(name: str) -> None:
    config = validate(read_preset(name)["model"], ModelConfig, source=name)
    with torch.device("meta"):
        detector = config.without_pretrained_weights().build(80)
    assert detector.num_classes == 80
    assert detector.anchor_generator.num_per_cell == (1 if name in ONE_ANCHOR else 9,) * 5
    parameters = sum(p.numel() for p in detector.parameters())
    # torchvision: 34.0 M for v1 and 38.2 M for v2, with 91 classes; GFL's paper: 32.2 M
    assert (32e6 if name in ONE_ANCHOR else 33e6) < parameters < 39e6
    learning = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert not any(n.startswith(("backbone.conv1", "backbone.layer1.")) for n in learning)
    assert any(n.startswith("backbone.layer2.") for n in learning)


def test_without_pretrained_weights_changes_nothing_else() -> None:
    config = validate(read_preset("paper")["model"], ModelConfig, source="paper")
    bare = config.without_pretrained_weights()
    assert config.backbone.weights == "IMAGENET1K_V1"
    assert bare.backbone.weights is None
    assert bare.model_copy(update={"backbone": config.backbone}) == config


def test_anchors_and_pyramid_must_have_the_same_levels() -> None:
    config = validate({"anchors": {"sizes": [32, 64, 128]}}, ModelConfig, source="test")
    with pytest.raises(
        UserError, match=r"sizes has 3 entries, the pyramid has 5 levels \(strides 8, 16"
    ):
        config.build(3)


def test_own_ratios_for_each_level_build_one_shared_head() -> None:
    ratios = [[1.0, 2.0]] * 4 + [[0.5, 1.0]]
    tree = {"backbone": {"name": "resnet18"}, "anchors": {"ratios_per_level": ratios}}
    with torch.device("meta"):
        detector = validate(tree, ModelConfig, source="test").build(4)
    assert detector.head.classification.output.out_channels == 2 * 3 * 4


def test_a_misspelt_key_is_answered_with_its_path_and_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"pyramid\.p6_form: unknown key, did you mean 'p6_from'"):
        validate({"pyramid": {"p6_form": "c5"}}, ModelConfig, source="test")
