"""``retina train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from retina.datasets.dataset import DatasetReport
from retina.devices import pick_device
from retina.distributed import is_main_process, process_group
from retina.experiment import Experiment, build_experiment, load_experiment


def run_training(config_path: Path, overrides: Sequence[str], *, resume: bool) -> None:
    """Train, and exit with 128 + n where signal n stopped it."""
    config = load_experiment(config_path, overrides)
    minutes = config.training.collective_timeout_minutes
    with process_group(pick_device(config.device).type, timeout_minutes=minutes):
        console = Console(quiet=not is_main_process(), highlight=False, soft_wrap=True)
        experiment = build_experiment(config, resume=resume)
        _introduce(experiment, console)
        outcome = experiment.trainer.run()
    folder = experiment.config.output_dir
    if outcome.signal is not None:
        console.print(f"go on with: retina train {folder / 'config.yaml'} --resume", markup=False)
        sys.exit(128 + outcome.signal)
    best = "" if outcome.best_ap is None else f", best validation AP {outcome.best_ap:.4f}"
    console.print(
        f"done: {outcome.step} steps, {outcome.seconds:.0f} s of training{best}; "
        f"the detectors are in {folder / 'checkpoints'}",
        markup=False,
    )


def _introduce(experiment: Experiment, console: Console) -> None:
    config = experiment.config
    for change in experiment.changes:
        console.print(f"changed since the last checkpoint: {change}", markup=False)
    parameters = sum(p.numel() for p in experiment.detector.parameters())
    console.print(
        f"{config.model.backbone.name}, {parameters / 1e6:.1f} M parameters, on "
        f"{pick_device(config.device)} in {config.training.precision}; run folder "
        f"{config.output_dir}",
        markup=False,
    )
    for note in experiment.notes:
        console.print(note, markup=False)
    for split, report in experiment.reports.items():
        for line in describe_report(split, report):
            console.print(line, markup=False)
    if experiment.load_report is not None:
        console.print(
            f"{config.model.initialize_from}: {experiment.load_report.describe()}", markup=False
        )
        for difference in experiment.differences:
            console.print(f"  differs from that detector: {difference}", markup=False)


def describe_report(split: str, report: DatasetReport) -> list[str]:
    """A line for the counts of a split, and one for each finding."""
    first = (
        f"{split}: {report.num_images} images, {report.num_boxes} boxes, {report.num_crowd} crowd "
        f"regions, {report.num_empty_images} images without objects"
    )
    return [first, *(f"  {finding}" for finding in report.findings)]
