"""Trees laid over each other: files, the files below them, and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retina.configuration.comparison import NOT_SET, differences, leaves
from retina.configuration.errors import ConfigError
from retina.configuration.schema import Tree
from retina.configuration.shipped import PRESETS, find_config, preset_names
from retina.configuration.yaml_text import MAX_CHARACTERS, MAX_DEPTH, parse_yaml
from retina.errors import UserError, did_you_mean
from retina.text_files import read_text
from retina.wording import counted


def merge(base: Any, top: Any) -> Any:
    """``top`` laid over ``base``; `retina.configuration` says by which rule."""
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    if "kind" in top and top["kind"] != base.get("kind", top["kind"]):
        return top
    merged = dict(base)
    for key, value in top.items():
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def read_tree(path: Path | str) -> Tree:
    """The raw content of a YAML file, merged over the files that it extends.

    A bare name that is no file, here or in ``extends``, means the shipped config of that name.

    Raises:
        ConfigError: a file is missing or no YAML mapping, or the files extend each other in a ring.
    """
    return _read_tree(find_config(Path(path)), ())


def _read_tree(path: Path, above: tuple[Path, ...]) -> Tree:
    here = path.resolve()
    if here in above:
        raise ConfigError(f"{path}: 'extends' leads back to this file")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"{path}: more than {MAX_DEPTH} files extend each other")
    try:
        text = read_text(path, "config file", max_bytes=4 * MAX_CHARACTERS)
    except UserError as error:
        raise ConfigError(str(error)) from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, this is not one")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: must be the path of one file, not {base!r}")
    below = _read_tree(find_config(Path(base), beside=path.parent), (*above, here))
    merged: Tree = merge(below, tree)
    return merged


def read_preset(name: str, folder: Path = PRESETS) -> Tree:
    """What ``preset: NAME`` puts below a config: the file of that name, read as any other.

    Raises:
        ConfigError: there is no such preset; names the nearest.
    """
    known = preset_names(folder)
    if name not in known:
        raise ConfigError(
            f"there is no preset {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
        )
    return read_tree(folder / f"{name}.yaml")


def kept_keys(path: Path | str, overrides: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """What a file says otherwise than the preset that the command line lays below it.

    Of optimizer and schedule that is all that the preset does not say, too.

    Args:
        path: the YAML file.
        overrides: of the command line; what they set is not the file's.

    Returns:
        The file's value and the preset's by dotted path; empty where no preset is named that is
        not the file's own.

    Raises:
        ConfigError: as in reading the config.
    """
    asked: Tree = {}
    for override in overrides:
        asked = apply_override(asked, override)
    tree, name = read_tree(path), asked.get("preset")
    if name is None or name == tree.get("preset"):
        return {}
    preset = read_preset(str(name))
    said, changed = leaves(tree), leaves(asked)
    return {
        key: (own, of_preset)
        for key, (of_preset, own) in differences(
            preset,
            merge(merge(preset, tree), asked),  # as the config is composed
        ).items()
        if key in said.keys() - changed.keys()
        and own != NOT_SET
        and (of_preset != NOT_SET or key.startswith(("optimizer.", "schedule.")))
    }


def apply_override(tree: Tree, override: str) -> Tree:
    """``tree`` with one ``dotted.path=value`` laid over it; the value is read as YAML.

    Raises:
        ConfigError: there is no ``=``, or the path leads through something that is no mapping.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigError(
            f"'{override}' is no override: write key=value, for example optimizer.lr=0.005"
        )
    value = parse_yaml(text, f"the value of the override '{override}'")
    changed: Tree = _with(tree, keys, value, override)
    return changed


def _with(node: Any, keys: Sequence[str], value: Any, override: str) -> Any:
    if not keys:
        # An override of a whole object is laid over what is there, like a file's mapping.
        return merge(node, value)
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(
                f"'{override}': '{key}' is no position of a list with "
                f"{counted(len(node), 'entry')} (from 0)"
            )
        copy = list(node)
        copy[int(key)] = _with(node[int(key)], rest, value, override)
        return copy
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise ConfigError(f"'{override}': the key before '{key}' holds {node!r}, not a mapping")
    if key == "kind" and not rest:
        return merge(node, {"kind": value})
    return {**node, key: _with(node.get(key), rest, value, override)}
