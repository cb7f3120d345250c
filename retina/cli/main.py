"""The ``retina`` command: the commands of the registry, imported only where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from shutil import get_terminal_size
from typing import Annotated

import typer

from retina import __version__
from retina.registry import present_commands

_GROUPS = {
    "data": "Make, check, describe, divide and convert data sets.\n\n"
    "Example: `retina data check --images photos --annotations labels.json`",
    "loss": "Look into the classification loss of a trained detector.\n\n"
    "Example: `retina loss anatomy runs/demo/checkpoints/best.safetensors`",
    "debug": "Look into a training that went wrong.\n\n"
    "Example: `retina debug replay runs/first/divergence/step_000123.pt`",
    "import": "Turn other projects' weights into a detector file.\n\n"
    "Example: `retina import torchvision COCO_V1 --variant v2 --output coco.safetensors`",
}
"""The help of the commands that have commands of their own."""

_NARROW = 65
"""Columns of a terminal below which rich would cut the names of options: plain text cuts none."""


def make_app(words: Sequence[str]) -> typer.Typer:
    """The command line, with the commands that its first word calls for.

    Args:
        words: the command line without the program's name. Where the first is a command or a group,
            only that is imported; else, say for ``--help``, all but the commands of groups.
    """
    app = typer.Typer(
        name="retina",
        help="RetinaNet: train a dense single-stage detector, evaluate it, run it on images.\n\n"
        "Example: `retina train configs/my_data.yaml output_dir=runs/first`",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown" if get_terminal_size().columns >= _NARROW else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_with_version,
    )
    commands = present_commands()
    known = {command.words[0] for command in commands}
    wanted = words[0] if words and words[0] in known else None
    groups: dict[str, typer.Typer] = {}
    for command in commands:
        first, *rest = command.words
        if rest and first not in groups:
            groups[first] = typer.Typer(help=_GROUPS[first], no_args_is_help=True)
            app.add_typer(groups[first], name=first)
        if first == wanted or (wanted is None and not rest):
            function = import_module(command.module).command
            (groups[first] if rest else app).command(command.words[-1])(function)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retina {__version__}")
        raise typer.Exit


def _with_version(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None: ...
