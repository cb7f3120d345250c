"""Typed, strict configuration from YAML files and dotted overrides.

A config is a tree of frozen pydantic models. It is composed in layers, later ones win:

1. the preset, where the file names one (``preset: NAME``): a file that comes with the package,
2. the file that ``extends: FILE`` names (relative to the file that says so, or a shipped config),
   and so on down,
3. the file itself,
4. the overrides of the command line, ``optimizer.lr=0.005``.

Mappings are merged key by key, with one exception: a mapping whose ``kind`` differs from the one
below replaces it, since the keys of the other kind would mean nothing to it.

YAML is read by the rules of YAML 1.2, so ``1e-4`` is a number and ``no`` and ``on`` are strings.
"""

from retina.configuration.comparison import NOT_SET, differences, leaves
from retina.configuration.composition import (
    apply_override,
    kept_keys,
    merge,
    read_preset,
    read_tree,
)
from retina.configuration.errors import ConfigError
from retina.configuration.loading import compose, load_config, to_yaml, validate
from retina.configuration.schema import Config, OneOf, Tree
from retina.configuration.shipped import (
    PRESETS,
    find_config,
    preset_names,
    schema_line,
    shipped_configs,
)
from retina.configuration.yaml_text import dump_yaml, parse_yaml

__all__ = [
    "NOT_SET",
    "PRESETS",
    "Config",
    "ConfigError",
    "OneOf",
    "Tree",
    "apply_override",
    "compose",
    "differences",
    "dump_yaml",
    "find_config",
    "kept_keys",
    "leaves",
    "load_config",
    "merge",
    "parse_yaml",
    "preset_names",
    "read_preset",
    "read_tree",
    "schema_line",
    "shipped_configs",
    "to_yaml",
    "validate",
]
