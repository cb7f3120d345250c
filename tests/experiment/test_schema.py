"""The JSON schema that editors check configs with, and the page of every key."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from retina.configuration import PRESETS, parse_yaml, schema_line, shipped_configs
from tests.conftest import REPOSITORY, Invoke  # type: ignore[import-not-found]
from tests.small_detector import small_backbone_unlisted

SCHEMA = json.loads((REPOSITORY / "configs" / "schema.json").read_text(encoding="utf-8"))
CHECK = Draft202012Validator(SCHEMA)
FILES = [*sorted((REPOSITORY / "configs").glob("*.yaml")), *sorted(PRESETS.glob("*.yaml"))]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    with small_backbone_unlisted():
        yield importlib.import_module("make_reference")


def tree(path: Path) -> Any:
    return parse_yaml(path.read_text(encoding="utf-8"), str(path))


def test_the_files_are_those_of_the_present_schema(reference: ModuleType) -> None:
    advice = "run python scripts/make_reference.py"
    assert reference.SCHEMA.read_text(encoding="utf-8") == reference.schema_text(), advice
    page = reference.Reference().to_markdown()
    assert reference.PAGE.read_text(encoding="utf-8") == page, advice


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    CHECK.validate(tree(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wrong_key_anywhere_in_a_shipped_config_is_found(path: Path) -> None:
    whole = tree(path)
    places = [place for place in mappings(whole) if "transforms" not in place]
    assert places
    for place in places:
        wrong = copy.deepcopy(whole)
        at(wrong, place)["no_such_key"] = 1
        assert not CHECK.is_valid(wrong), place


def mappings(node: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    if isinstance(node, dict):
        yield place
    for step, value in node.items() if isinstance(node, dict) else ():
        yield from mappings(value, *place, step)


def at(node: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        node = node[step]
    return node


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("training: {epochs: 5}", True),
        ("training: {epochs: 0}", False),
        ("training: {epochs: five}", False),
        ("preset: own_data", True),
        ("preset: own_dada", False),
        ("optimizer: {kind: adamw, betas: [0.9, 0.999]}", True),
        ("optimizer: {betas: [0.9, 0.999]}", True),  # the kind may come from below
        ("optimizer: {kind: sgd, betas: [0.9, 0.999]}", False),
        ("optimizer: {momentum: 0.9, betas: [0.9, 0.999]}", False),
        ("dataset: {train: {source: photos}}", True),
        ("dataset: {validation: null}", True),
        ("model: {initialize_from: coco_v2}", True),
        ("model: {backbone: {kind: resnet, drop_path_rate: 0.1}}", False),
        ("model: {backbone: {kind: timm, drop_path_rate: 0.1}}", True),
        ("augmentation: {transforms: [{name: Blur, p: 0.1}]}", True),
        ("objective: {classification: {kind: focal, alpha: [0.2, 0.3]}}", True),
        ("extends: nano.yaml", True),
    ],
)
def test_what_an_editor_says_of_a_line(text: str, is_valid: bool) -> None:
    assert CHECK.is_valid(parse_yaml(text, "test")) is is_valid


def test_every_key_is_told_on_the_page(reference: ModuleType) -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    for name, model in (("the file", SCHEMA), *SCHEMA["$defs"].items()):
        for key, field in model["properties"].items():
            assert f"`{key}`" in page, f"{name}: {key}"
            if not {"$ref", "const"} & set(field):
                assert field.get("description"), f"{name}.{key} has no docstring"
    assert "| `epochs` | integer ≥ 1 | `12` | Passes over the training set. |" in page
    assert "| `drop_factor` | number > 0, < 1 | `0.1` |" in page


def test_init_names_the_schema_of_the_installed_package(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my_data.yaml"
    assert invoke("init", synthetic_data, "--output", path, "--from-scratch").code == 0
    first, *_ = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert first == schema_line()
    assert first.endswith("/configs/schema.json\n")
    assert (shipped_configs() / "schema.json").as_uri() in first
    assert (shipped_configs() / "schema.json").is_file()
    CHECK.validate(tree(path))
