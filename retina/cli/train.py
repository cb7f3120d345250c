"""``retina train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.init import found, looked_at, write
from retina.cli.options import DeviceOfConfig, FromScratch, Overrides, with_device
from retina.cli.output import describe_report, make_console, print_lines
from retina.cli.run_beside import refuse_torchrun
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from retina.experiment import Experiment, ExperimentConfig


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG|SOURCE",
            help="The experiment, a YAML file; or data: a folder or annotation file.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    from_scratch: FromScratch = False,
    device: DeviceOfConfig = None,
) -> None:
    """Train a detector as a config says, or on the data of a folder.

    Of data, `retina init` makes the config first: it lies in the run folder as init.yaml.

    Example: `retina train photos_from_the_labelling_tool`

    Example: `retina train configs/my_data.yaml dataset.train.images=photos output_dir=runs/first`

    Several GPUs: `torchrun --nproc-per-node 8 -m retina train CONFIG.yaml`
    """
    from retina.distributed import is_main_process
    from retina.experiment import is_config, load_experiment
    from retina.experiment import train as run_training
    from retina.training.run_folder import recorded_run

    console = make_console()
    said: frozenset[str] = frozenset()

    def introduce(experiment: Experiment) -> None:
        console.quiet = not is_main_process()
        if run is not None and run.resolve() != loaded.output_dir.resolve():
            print_lines(
                console,
                f"output_dir={loaded.output_dir} is given: the run in {run}, whose config this "
                "is, stays as it is",
            )
        lines = (line for line in _introduction(experiment) if line.strip() not in said)
        print_lines(console, *kept, *lines)

    changes = with_device(overrides, device)
    kept: tuple[str, ...] = ()
    if is_config(source):
        run, loaded = recorded_run(source), load_experiment(source, changes)
        kept = tuple(_kept(source, changes))
    else:
        run = None
        loaded, said = _config_of_data(
            console, source, changes, resume=resume, device=device, from_scratch=from_scratch
        )
    if from_scratch:
        loaded = loaded.from_scratch()
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
    if outcome.report is not None:
        print_lines(console, f"report: {outcome.report}")


def _config_of_data(
    console: Console,
    source: Path,
    changes: Sequence[str],
    *,
    resume: bool,
    device: str | None,
    from_scratch: bool,
) -> tuple[ExperimentConfig, frozenset[str]]:
    """The config that was made of the data for the run that goes on, or one that is made now.

    Returns:
        The config, and the lines about the data that were printed while it was made.

    Raises:
        UserError: it is no data that can be trained on; or its run folder holds a run already.
    """
    from retina.errors import UserError
    from retina.experiment import load_experiment
    from retina.experiment.checks import check_run_folder
    from retina.experiment.recipe import run_folder_of
    from retina.training.run_folder import CONFIG

    refuse_torchrun(
        f"retina train {source}",
        "looks at data",
        fix=f"make a config with retina init {source}, and start that in several",
    )
    if (source / CONFIG).is_file():
        raise UserError(
            f"{source}: is the folder of a run, and no data; its config is {source / CONFIG}"
        )
    folder = run_folder_of(source, changes)
    if resume and (folder / CONFIG).is_file():
        print_lines(console, f"going on with {folder / CONFIG}")
        return load_experiment(folder / CONFIG, changes), frozenset()
    check_run_folder(folder, resume=resume)
    facts, recipe = looked_at(
        console,
        source,
        overrides=changes,
        device=device,
        from_scratch=from_scratch,
    )
    path = folder / "init.yaml"
    write(console, facts, recipe.in_folder(folder), path)
    return load_experiment(path, changes), frozenset(line.strip() for line in found(facts))


def _kept(path: Path, changes: Sequence[str]) -> Iterator[str]:
    """What of the file stays though another preset was asked for."""
    from retina.configuration import kept_keys

    kept = kept_keys(path, changes)
    if kept:
        yield f"{path} has keys of its own, which stay; the preset has others:"
    for key, (own, preset) in kept.items():
        yield f"  {key}: {own}, the preset {preset}"


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
    for split, dataset in experiment.datasets.items():
        yield from describe_report(split, dataset.report)
    if experiment.load_report is not None:
        yield f"{config.model.initialize_from}: {experiment.load_report.describe()}"
        for difference in experiment.differences:
            yield f"  differs from that detector: {difference}"
