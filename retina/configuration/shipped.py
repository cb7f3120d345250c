"""The YAML files that come with the package: presets, and whole configs."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

PRESETS = _PACKAGE / "presets"
"""A file for each reference implementation, with everything that they differ in written out."""


def shipped_configs() -> Path:
    """The folder of the whole configs: in an installed package, or beside it in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def find_config(name: Path, *, beside: Path = Path()) -> Path:
    """The file of that name in a folder; where there is none, the shipped config of that name.

    Only a bare name can mean a shipped config. What is found nowhere is returned as in the folder.
    """
    path = beside / name
    shipped = shipped_configs() / name.name
    is_shipped = name.name == str(name) and not path.exists() and shipped.is_file()
    return shipped if is_shipped else path


def preset_names(folder: Path = PRESETS) -> list[str]:
    """What ``preset: NAME`` may name."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def schema_line() -> str:
    """The first line of a config that editors complete and check: where its JSON schema lies."""
    return f"# yaml-language-server: $schema={(shipped_configs() / 'schema.json').as_uri()}\n"
