"""``retina doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.options import ConfigPath, DeviceOfConfig, Overrides, output_option, with_device
from retina.cli.output import make_console, print_lines
from retina.cli.run_beside import folder_beside, refuse_torchrun


def command(
    config: ConfigPath,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        output_option("Folder of doctor.json and the pictures; by default OUTPUT_DIR_doctor."),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Write CONFIG.mended.yaml: CONFIG with the fixes."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what trains a few steps or measures speed.")
    ] = False,
    device: DeviceOfConfig = None,
) -> None:
    """Check a set-up before training it: data, anchors, learning rate, speed, memory.

    Each finding says what is wrong, why it matters, and the change of the config that fixes it.
    The exit code is 1 where a finding is an error, and 2 where a check could not be made.

    Example: `retina doctor configs/my_data.yaml --apply`
    """
    from retina.experiment import load_experiment
    from retina.instruments.doctor.checks import run_checks
    from retina.instruments.doctor.report import (
        conclusion,
        finding_lines,
        results_table,
        write_fixed_config,
        write_json,
    )
    from retina.storage import make_folder

    refuse_torchrun("retina doctor", "runs")
    changes = with_device(overrides, device)
    loaded = load_experiment(config, changes)
    folder = output or folder_beside(loaded.output_dir, "doctor")
    make_folder(folder)
    console = make_console()
    with console.status("reading") as status:
        report = run_checks(loaded, folder, quick=quick, announce=status.update)
    console.print(results_table(report).to_terminal())
    for finding in report.findings:
        console.print()
        for line in finding_lines(finding):
            console.print(line)
    write_json(report, config, folder / "doctor.json")
    console.print()
    console.print(conclusion(report), markup=False)
    print_lines(console, f"doctor.json and batch.png are in {folder}")
    if apply:
        written = write_fixed_config(config, changes, report.findings)
        if written is None:
            text = "nothing to apply: no change of the config fixes a finding"
        else:
            text = f"{written}: the config with the patches; go on with: retina doctor {written}"
        print_lines(console, text)
    if report.stopped_by is not None:
        raise report.stopped_by
    if report.has_errors:
        raise SystemExit(1)
