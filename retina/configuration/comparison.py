"""What one config says otherwise than another."""

from __future__ import annotations

from typing import Any

from retina.configuration.schema import Tree

NOT_SET = "not set"
"""Stands for the value of a key that one of two configs does not have."""


def leaves(tree: Tree, path: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        below = f"{path}.{key}" if path else str(key)
        found |= leaves(value, below) if isinstance(value, dict) else {below: value}
    return found


def differences(before: Tree, now: Tree) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of every leaf that differs, by its dotted path."""
    old, new = leaves(before), leaves(now)
    return {
        key: (old.get(key, NOT_SET), new.get(key, NOT_SET))
        for key in {**old, **new}
        if old.get(key, NOT_SET) != new.get(key, NOT_SET)
    }
