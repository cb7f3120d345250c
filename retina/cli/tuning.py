"""``retina tune``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from retina.configuration import load_config
from retina.experiment import ExperimentConfig, load_experiment
from retina.objective.classification import FocalConfig
from retina.studies.tuning.comparison import Stage
from retina.studies.tuning.figure import write_figure
from retina.studies.tuning.grid import GridConfig
from retina.studies.tuning.report import caveat, failures, stage_table, write_reports
from retina.studies.tuning.runs import RunInTurn, TuningStoppedError
from retina.studies.tuning.search import Tuning


def run_tuning(
    config_path: Path, overrides: Sequence[str], *, grid_path: Path | None, output: Path | None
) -> None:
    """Search, print the tables and write the reports; exit with 128 + n where signal n came."""
    console = Console(highlight=False)
    grid = GridConfig() if grid_path is None else load_config(grid_path, (), GridConfig)
    changes = list(overrides)
    if output is not None:
        changes.append(f"output_dir={output}")
    config = load_experiment(config_path, changes)
    if output is None:
        folder = config.output_dir
        config = config.model_copy(update={"output_dir": folder.with_name(f"{folder.name}_tune")})

    def announce(run: ExperimentConfig, number: int, count: int) -> None:
        loss = run.objective.classification
        assert isinstance(loss, FocalConfig)
        is_done = (run.output_dir / "outcome.json").exists()
        console.print(
            f"run {number} of {count}: γ = {loss.gamma:g}, α = {loss.alpha or 'none'}, seed "
            f"{run.seed}{' (done before)' if is_done else ''}",
            markup=False,
            soft_wrap=True,
        )

    def show(stage: Stage) -> None:
        console.print(stage_table(stage, grid.confidence))
        for line in (*stage.verdicts(), *failures(stage), f"chosen: {stage.reason}", ""):
            console.print(line, markup=False, soft_wrap=True)

    tuning = Tuning(config, grid, RunInTurn(announce), on_stage=show)
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
    console.print(f"train with: {' '.join(result.chosen.overrides)}", markup=False, soft_wrap=True)
    console.print(
        f"tune.md, tune.json, tune.csv and tune.png are in {tuning.folder}, the runs in "
        f"{tuning.folder / 'runs'}",
        markup=False,
        soft_wrap=True,
    )
