"""``retina debug replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.options import Device
from retina.cli.output import make_console, print_lines


def command(
    file: Annotated[Path, typer.Argument(help="What a training left in divergence/.")],
    device: Device = "auto",
) -> None:
    """Run a step that was not finite again in fp32, and say where it breaks.

    Example: `retina debug replay runs/first/divergence/step_000123.pt`
    """
    from retina.devices import pick_device
    from retina.instruments.replay.replaying import describe_step, replay_step
    from retina.instruments.replay.report import layer_table

    console = make_console()
    result = replay_step(file, pick_device(device))
    print_lines(console, *describe_step(result))
    console.print(layer_table(result.fp32).to_terminal())
    print_lines(console, *result.conclusion())
