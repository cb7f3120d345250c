"""``retina train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import ConfigPath, DeviceOfConfig, Overrides, with_device
from retina.cli.output import describe_report, make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retina.experiment import Experiment


def command(
    config: ConfigPath,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    device: DeviceOfConfig = None,
) -> None:
    """Train a detector as a config says.

    Example: `retina train configs/my_data.yaml dataset.train.images=photos output_dir=runs/first`

    Several GPUs: `torchrun --nproc-per-node 8 -m retina train CONFIG.yaml`
    """
    from retina.distributed import is_main_process
    from retina.experiment import load_experiment
    from retina.experiment import train as run_training
    from retina.training.run_folder import recorded_run

    console = make_console()

    def introduce(experiment: Experiment) -> None:
        console.quiet = not is_main_process()
        if run is not None and run.resolve() != loaded.output_dir.resolve():
            print_lines(
                console,
                f"output_dir={loaded.output_dir} is given: the run in {run}, whose config this "
                "is, stays as it is",
            )
        print_lines(console, *_introduction(experiment))

    run = recorded_run(config)
    loaded = load_experiment(config, with_device(overrides, device))
    outcome = run_training(loaded, resume=resume, on_start=introduce)
    folder = loaded.output_dir
    if outcome.signal is not None:
        print_lines(console, f"go on with: retina train {folder / 'config.yaml'} --resume")
        raise SystemExit(128 + outcome.signal)
    best = "" if outcome.best_ap is None else f", best validation AP {outcome.best_ap:.4f}"
    print_lines(
        console,
        f"done: {counted(outcome.step, 'step')}, {outcome.seconds:.0f} s of training{best}; the "
        f"detectors are in {folder / 'checkpoints'}",
    )


def _introduction(experiment: Experiment) -> Iterator[str]:
    from retina.devices import pick_device

    config = experiment.config
    for change in experiment.changes:
        yield f"changed since the last checkpoint: {change}"
    parameters = sum(p.numel() for p in experiment.detector.parameters())
    yield (
        f"{config.model.backbone.name}, {parameters / 1e6:.1f} M parameters, on "
        f"{pick_device(config.device)} in {config.training.precision}; run folder "
        f"{config.output_dir}"
    )
    yield from experiment.notes
    for split, report in experiment.reports.items():
        yield from describe_report(split, report)
    if experiment.load_report is not None:
        yield f"{config.model.initialize_from}: {experiment.load_report.describe()}"
        for difference in experiment.differences:
            yield f"  differs from that detector: {difference}"
