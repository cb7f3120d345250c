"""From a folder of data to a config that explains itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from retina.configuration import Tree, apply_override, schema_line
from retina.errors import UserError
from retina.experiment.recipe.choices import Recipe
from retina.experiment.recipe.choosing import choose_recipe
from retina.experiment.recipe.facts import Facts, name_of
from retina.registry import MEASURES, is_present
from retina.storage import make_folder, write_text


def make_recipe(facts: Facts, overrides: Sequence[str] = ()) -> Recipe:
    """The config for some data on a machine.

    Where the doctor is there, what it measures takes the place of what is usual.

    Args:
        facts: about both.
        overrides: changes that will be laid over the config: it is measured with them.

    Raises:
        ConfigError: an override changes nothing of a config.
    """
    recipe = choose_recipe(facts)
    for name in MEASURES:
        if is_present(name):
            recipe = import_module(name).measured(recipe, facts, overrides)
    return recipe


def run_folder_of(source: Path, overrides: Sequence[str] = ()) -> Path:
    """Where a training on some data has its files: ``runs/NAME``, unless a change says otherwise.

    Raises:
        ConfigError: what changes it is no ``key=value``.
    """
    tree: Tree = {"output_dir": f"runs/{name_of(source)}"}
    for override in overrides:
        if override.partition("=")[0].strip() == "output_dir":
            tree = apply_override(tree, override)
    return Path(str(tree["output_dir"]))


def write_recipe(recipe: Recipe, facts: Facts, path: Path, command: str) -> None:
    """Write the config as YAML.

    Args:
        recipe: the config.
        facts: it was chosen by.
        path: the file; its folder is made.
        command: what trains with it.

    Raises:
        UserError: it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the YAML file to write")
    make_folder(path.parent)
    text = recipe.to_yaml(
        f"Made by retina init from what was found. {facts.source.describe()}.",
        *(f"{line}." for line in facts.left_out),
        f"Change what you know better, then: {command}",
    )
    write_text(path, schema_line() + text)
