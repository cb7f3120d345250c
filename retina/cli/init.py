"""``retina init``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import DataPath, FromScratch, Images, output_option
from retina.cli.output import describe_report, make_console, print_lines
from retina.cli.run_beside import refuse_torchrun

if TYPE_CHECKING:
    from rich.console import Console

    from retina.experiment.recipe import Facts, Recipe


def command(
    source: DataPath,
    output: Annotated[Path, output_option("The config to write, a YAML file.")] = Path(
        "my_data.yaml"
    ),
    from_scratch: FromScratch = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="What it shall train on: auto, cuda, cuda:1, mps, cpu."),
    ] = None,
    images: Images = None,
) -> None:
    """Look at data, and write a config for it that explains itself.

    Format, splits, classes, input size, anchors, network, learning rate, length and augmentation
    are chosen by what is in the data and by the machine; each line says why.

    Example: `retina init photos_from_the_labelling_tool --output my_data.yaml`
    """
    from retina.errors import UserError

    refuse_torchrun("retina init", "looks at the data")
    if output.exists():
        raise UserError(f"{output}: is there already; name another file with --output")
    console = make_console()
    facts, recipe = looked_at(
        console, source, images=images, device=device, from_scratch=from_scratch
    )
    write(console, facts, recipe, output)
    print_lines(console, f"go on with: retina train {output}")


def looked_at(
    console: Console,
    source: Path,
    *,
    overrides: Sequence[str] = (),
    images: Path | None = None,
    device: str | None,
    from_scratch: bool,
) -> tuple[Facts, Recipe]:
    """Look at the data, say what was found, and choose a config.

    Raises:
        UserError: it is no data that can be trained on, or there is no such device.
    """
    from retina.experiment.recipe import look_at, make_recipe

    with console.status("looking at the data"):
        facts = look_at(source, images=images, device=device, from_scratch=from_scratch)
    print_lines(console, *found(facts))
    with console.status("measuring what fits"):
        return facts, make_recipe(facts, overrides)


def write(console: Console, facts: Facts, recipe: Recipe, path: Path) -> None:
    """Write the config, and say where.

    Raises:
        UserError: it cannot be written.
    """
    from retina.experiment.recipe.making import write_recipe

    write_recipe(recipe, facts, path, f"retina train {path}")
    print_lines(console, f"{path}: the config, with the reason at each line")


def found(facts: Facts) -> Iterator[str]:
    """What was found in the data, a line each."""
    yield facts.source.describe()
    for name in ("train", "validation", "test"):
        split = getattr(facts, name)
        if split is not None:
            lines = describe_report(name, split.dataset.report)
            yield from (line for line in lines if line.strip() != facts.source.describe())
    yield from facts.left_out
