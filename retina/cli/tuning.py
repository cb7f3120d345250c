"""``retina tune``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from retina.configuration import load_config
from retina.errors import UserError
from retina.experiment import load_experiment
from retina.instruments.tuning.comparison import Stage
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


def run_tuning(
    config_path: Path, overrides: Sequence[str], *, grid_path: Path | None, output: Path | None
) -> None:
    """Search, print the tables and write the reports; exit with 128 + n where signal n came."""
    _refuse_torchrun()
    console = Console(highlight=False)
    grid = GridConfig() if grid_path is None else load_config(grid_path, (), GridConfig)
    changes = list(overrides)
    if output is not None:
        changes.append(f"output_dir={output}")
    config = load_experiment(config_path, changes)
    if output is None:
        config = config.model_copy(update={"output_dir": _default_output(config.output_dir)})

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    def show(stage: Stage) -> None:
        console.print(stage_table(stage, grid.confidence).to_terminal())
        for line in (*stage.verdicts(), *failures(stage), f"chosen: {stage.reason}", ""):
            say(line)

    tuning = Tuning(
        config,
        grid,
        on_run=say,
        on_stage=show,
        on_warning=lambda text: say(f"warning: {text}"),
    )
    try:
        result = tuning.run()
    except TuningStoppedError as stop:
        console.print(
            f"stopped by signal {stop.signal}; the same command goes on from there", markup=False
        )
        sys.exit(128 + stop.signal)
    write_reports(result, tuning.folder)
    write_figure(result, tuning.folder / "tune.png")
    console.print(caveat(result), markup=False)
    console.print(conclusion(result), markup=False, soft_wrap=True)
    console.print(
        f"tune.md, tune.json, tune.csv and tune.png are in {tuning.folder}, the runs in "
        f"{tuning.folder / 'runs'}",
        markup=False,
        soft_wrap=True,
    )


def _refuse_torchrun() -> None:
    """Several processes would train the same runs in the same folders."""
    num_processes = os.environ.get("WORLD_SIZE", "1")
    if num_processes not in ("", "1"):
        raise UserError(
            f"retina tune was started in {num_processes} processes (WORLD_SIZE); it trains in one: "
            "start it without torchrun"
        )


def _default_output(run: Path) -> Path:
    """``runs/demo_tune`` beside the run folder that the config names."""
    folder = run if run.name not in ("", "..") else run.resolve()
    if not folder.name:
        raise UserError(f"output_dir={run}: nothing lies beside it; give a folder with --output")
    return folder.with_name(f"{folder.name}_tune")
