"""From YAML files and overrides to a typed config, and back to YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from retina.configuration.composition import apply_override, merge, read_preset, read_tree
from retina.configuration.errors import ConfigError, explained
from retina.configuration.schema import (
    Config,
    OneOf,
    Tree,
    field_type,
    has_kinds,
    union_member,
    unwrap,
)
from retina.configuration.shipped import find_config
from retina.configuration.yaml_text import dump_yaml

C = TypeVar("C", bound=Config)


def load_config(path: Path | str, overrides: Sequence[str], schema: type[C]) -> C:
    """Read, compose and validate a config file.

    Args:
        path: the YAML file.
        overrides: ``dotted.path=value`` each, applied in order.
        schema: the model to validate against.

    Raises:
        ConfigError: with every problem of the file in one message.
    """
    path = find_config(Path(path))
    return compose(read_tree(path), overrides, schema, source=str(path))


def compose(tree: Tree, overrides: Sequence[str], schema: type[C], *, source: str) -> C:
    """The typed config of a raw tree with overrides laid over it; ``source`` is for messages.

    Raises:
        ConfigError: with every problem in one message.
    """
    # The preset comes first, wherever it was named: the other overrides lie over its keys.
    for override in sorted(overrides, key=lambda text: not text.startswith("preset=")):
        if not override.startswith("preset="):
            tree = _with_default_kinds(_on_preset(tree, schema, source), schema)
        tree = apply_override(tree, override)
    return validate(tree, schema, source=source)


def validate(tree: Any, schema: type[C], *, source: str) -> C:
    """The typed config of a raw tree; ``source`` names it in the error message.

    Raises:
        ConfigError: with every problem in one message.
    """
    tree = _with_default_kinds(_on_preset(tree, schema, source), schema)
    try:
        # JSON mode: strict types, yet a list may become a tuple and a string a path.
        return schema.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise explained(error, schema, source) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _on_preset(tree: Any, schema: type[Config], source: str) -> Any:
    name = tree.get("preset") if isinstance(tree, dict) else None
    if name is None or schema.preset_folder is None:
        return tree
    try:
        return merge(read_preset(str(name), schema.preset_folder), tree)
    except ConfigError as error:
        raise ConfigError(f"{source}: 1 problem\n  preset: {error}") from None


def _with_default_kinds(tree: Any, schema: type[BaseModel]) -> Any:
    """``tree`` with the ``kind`` of each field's default where a mapping does not say one.

    So ``optimizer: {lr: 0.1}`` changes the default optimizer instead of being no optimizer at all.
    """
    if not isinstance(tree, dict):
        return tree
    filled = dict(tree)
    for name, field in schema.model_fields.items():
        value = filled.get(name)
        if not isinstance(value, dict):
            continue
        if has_kinds(field) and "kind" not in value:
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                value = {"kind": getattr(default, "kind", None), **value}
        inner = unwrap(field_type(field))
        if has_kinds(field):
            kind = inner.kind_of(value) if isinstance(inner, OneOf) else value.get("kind", "")
            inner = union_member(inner, kind)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            value = _with_default_kinds(value, inner)
        filled[name] = value
    return filled


def to_yaml(config: Config) -> str:
    """The config as YAML with every field; reading it back gives an equal config."""
    return dump_yaml(config.model_dump(mode="json"))
