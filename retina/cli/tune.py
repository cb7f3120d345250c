"""``retina tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import ConfigPath, DeviceOfConfig, Overrides, output_option, with_device
from retina.cli.output import make_console, print_lines
from retina.cli.run_beside import folder_beside, refuse_torchrun

if TYPE_CHECKING:
    from retina.instruments.tuning.comparison import Stage


def command(
    config: ConfigPath,
    overrides: Overrides = None,
    grid: Annotated[
        Path | None,
        typer.Option("--grid", help="What to try and for how long, a YAML file: docs/tuning.md."),
    ] = None,
    output: Annotated[
        Path | None, output_option("Folder of the tuning; by default OUTPUT_DIR_tune.")
    ] = None,
    device: DeviceOfConfig = None,
) -> None:
    """Choose γ, then α, of the focal loss by short runs from one common start.

    Every AP comes with an interval from resampling the validation images. The same command goes on
    with a tuning that was stopped.

    Example: `retina tune configs/my_data.yaml --grid grid.yaml --output runs/tune`
    """
    from retina.configuration import load_config
    from retina.experiment import load_experiment
    from retina.instruments.tuning.figure import write_figure
    from retina.instruments.tuning.grid import GridConfig
    from retina.instruments.tuning.report import (
        caveat,
        conclusion,
        failures,
        stage_table,
        write_reports,
    )
    from retina.instruments.tuning.runs import TuningStoppedError
    from retina.instruments.tuning.search import Tuning

    refuse_torchrun("retina tune", "trains")
    console = make_console()
    searched = GridConfig() if grid is None else load_config(grid, (), GridConfig)
    changes = with_device(overrides, device)
    if output is not None:
        changes.append(f"output_dir={output}")
    loaded = load_experiment(config, changes)
    if output is None:
        folder = folder_beside(loaded.output_dir, "tune")
        loaded = loaded.model_copy(update={"output_dir": folder})

    def show(stage: Stage) -> None:
        console.print(stage_table(stage, searched.confidence).to_terminal())
        lines = (*stage.verdicts(), *failures(stage), f"chosen: {stage.reason}", "")
        print_lines(console, *lines)

    tuning = Tuning(
        loaded,
        searched,
        on_run=lambda text: print_lines(console, text),
        on_stage=show,
        on_warning=lambda text: print_lines(console, f"warning: {text}"),
    )
    try:
        result = tuning.run()
    except TuningStoppedError as stop:
        print_lines(
            console, f"stopped by signal {stop.signal}; the same command goes on from there"
        )
        raise SystemExit(128 + stop.signal) from None
    write_reports(result, tuning.folder)
    write_figure(result, tuning.folder / "tune.png")
    console.print(caveat(result), markup=False)
    print_lines(
        console,
        conclusion(result),
        f"tune.md, tune.json, tune.csv and tune.png are in {tuning.folder}, the runs in "
        f"{tuning.folder / 'runs'}",
    )
