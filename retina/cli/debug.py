"""``retina debug``: look into a training that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from retina.instruments.replay.layer_check import LayerCheck

app = typer.Typer(
    help="Look into a training that went wrong.\n\n"
    "Example: `retina debug replay runs/first/divergence/step_000123.pt`",
    no_args_is_help=True,
)

_ROWS_BEHIND = 5
"""Layers that are shown behind the first one that breaks; all of them do."""


@app.callback()
def _group() -> None:
    """Keeps the group a group while it has a single command."""


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="What a training left in divergence/.")],
    device: Annotated[
        str,
        typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps, cpu."),
    ] = "auto",
) -> None:
    """Run a step that was not finite again in fp32, and say where it breaks.

    Example: `retina debug replay runs/first/divergence/step_000123.pt`
    """
    from rich.console import Console

    from retina.devices import pick_device
    from retina.instruments.replay.replaying import describe_step, replay_step

    console = Console(highlight=False)
    result = replay_step(file, pick_device(device))
    for line in describe_step(result):
        console.print(line, markup=False, soft_wrap=True)
    console.print(_table(result.fp32))
    for line in result.conclusion():
        console.print(line, markup=False, soft_wrap=True)


def _table(check: LayerCheck) -> Table:
    """The layers up to a little behind the first that breaks, then the losses and the gradient."""
    from rich.table import Table

    table = Table(title=f"the step in {check.precision}", title_justify="left")
    for name in ("layer", "kind"):
        table.add_column(name, overflow="fold")
    for name in ("smallest", "largest", "not finite"):
        table.add_column(name, justify="right")
    num_behind = 0
    for number, layer in enumerate(check.layers):
        if num_behind > _ROWS_BEHIND:
            left = len(check.layers) - number
            table.add_row(f"… {left} more layers", "", "", "", "")
            break
        broken = layer.num_not_finite
        table.add_row(
            layer.name,
            layer.kind,
            f"{layer.smallest:.4g}",
            f"{layer.largest:.4g}",
            f"{broken} of {layer.num_values}" if broken else "0",
            style="red" if broken else None,
        )
        num_behind += bool(broken)
    table.add_section()
    for number, (classification, box) in enumerate(check.losses, start=1):
        part = f" of part {number}" if len(check.losses) > 1 else ""
        table.add_row(f"classification loss{part}", "sum", "", f"{classification:.4g}", "")
        table.add_row(f"box regression loss{part}", "sum", "", f"{box:.4g}", "")
    if check.gradient is None:
        table.add_row("all gradients", "", "", "", "0")
    else:
        table.add_row(f"gradient of {check.gradient}", "", "", "", "yes", style="red")
    return table
