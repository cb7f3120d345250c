"""``retina doctor``, and its short form at the start of a training."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from retina.errors import UserError
from retina.experiment import load_experiment
from retina.instruments.doctor.checks import run_checks
from retina.instruments.doctor.findings import Finding
from retina.instruments.doctor.report import (
    conclusion,
    finding_lines,
    results_table,
    write_fixed_config,
    write_json,
)
from retina.storage import make_folder


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """The arguments of the command, by their names."""

    config: Path
    overrides: Sequence[str]
    output: Path | None
    quick: bool
    apply: bool


def run_doctor(request: DoctorRequest) -> None:
    """Check, print, write doctor.json and batch.png; exit with 1 where a finding is an error."""
    _refuse_torchrun()
    config = load_experiment(request.config, request.overrides)
    folder = request.output or _default_output(config.output_dir)
    make_folder(folder)
    console = Console(highlight=False)
    with console.status("reading") as status:
        report = run_checks(config, folder, quick=request.quick, announce=status.update)
    console.print(results_table(report).to_terminal())
    for finding in report.findings:
        console.print()
        for line in finding_lines(finding):
            console.print(line)
    write_json(report, request.config, folder / "doctor.json")
    console.print()
    console.print(conclusion(report.findings), markup=False)
    console.print(f"doctor.json and batch.png are in {folder}", markup=False, soft_wrap=True)
    if request.apply:
        _apply(request, report.findings, console)
    if report.has_errors:
        sys.exit(1)


def _apply(request: DoctorRequest, findings: Sequence[Finding], console: Console) -> None:
    written = write_fixed_config(request.config, request.overrides, findings)
    if written is None:
        text = "nothing to apply: no change of the config fixes a finding"
    else:
        text = f"{written}: the config with the patches; go on with: retina doctor {written}"
    console.print(text, markup=False, soft_wrap=True)


def _refuse_torchrun() -> None:
    num_processes = os.environ.get("WORLD_SIZE", "1")
    if num_processes not in ("", "1"):
        raise UserError(
            f"retina doctor was started in {num_processes} processes (WORLD_SIZE); it runs in one: "
            "start it without torchrun"
        )


def _default_output(run: Path) -> Path:
    """``runs/demo_doctor`` beside the run folder that the config names."""
    folder = run if run.name not in ("", "..") else run.resolve()
    if not folder.name:
        raise UserError(f"output_dir={run}: nothing lies beside it; give a folder with --output")
    return folder.with_name(f"{folder.name}_doctor")
