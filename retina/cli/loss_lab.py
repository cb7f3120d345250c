"""``retina loss lab``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    Annotations,
    BatchSize,
    Data,
    DataConfig,
    Detector,
    Device,
    Images,
    NumWorkers,
    ScoredSplit,
    output_option,
    parse_alpha,
    scored_data,
)
from retina.cli.output import describe_report, make_console, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from retina.artifact import Artifact
    from retina.experiment import ResolvedData
    from retina.instruments.anatomy.lab.sample import LabSample


def command(
    detector: Detector,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    images_limit: Annotated[
        int, typer.Option("--images-limit", min=1, help="So many images, spread over the split.")
    ] = 200,
    gammas: Annotated[str, typer.Option("--gammas", help="To try.")] = "0,0.5,1,2,5",
    alphas: Annotated[
        str, typer.Option("--alphas", help="To try with each; none weighs nothing.")
    ] = "0.1,0.25,0.5,0.75,0.9",
    output: Annotated[
        Path | None,
        output_option(
            "Folder for the sample, lab.json and lab.png; by default lab/ in the run folder."
        ),
    ] = None,
    batch_size: BatchSize = 4,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
) -> None:
    """Replay any γ and α on the logits that a detector has: who would make up the gradient?

    The images are looked at once; what a replay needs of them is kept in the output folder, so
    that the next grid takes a second.

    Example: `retina loss lab runs/demo/checkpoints/best.safetensors --gammas 1,1.5,2,3`
    """
    from retina.experiment.data import run_folder
    from retina.instruments.anatomy.lab.figure import write_heat_maps
    from retina.instruments.anatomy.lab.replay import replay
    from retina.instruments.anatomy.lab.report import CAVEAT, lab_table, write_lab
    from retina.instruments.anatomy.source import find_trained_loss, picture_title
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, load_detector, taken_for
    from retina.storage import make_folder

    console = make_console()
    gamma_grid, alpha_grid = parse_gammas(gammas), parse_alphas(alphas)
    chosen = detector_given(detector, "DETECTOR")
    artifact = load_detector(chosen)
    print_lines(console, *taken_for(chosen))
    resolved = scored_data(
        chosen,
        artifact.categories,
        data,
        annotations,
        images,
        config,
        split,
        purpose="what to look at",
    )
    beside = chosen if isinstance(chosen, Path) else Path(chosen)  # of a name, the working folder
    folder = output or (run_folder(beside) or beside.parent) / "lab"
    make_folder(folder)  # refused, where it must be, before anything is computed
    print_lines(console, *describe_report(resolved.full_name, resolved.dataset.report))
    sample = _sample(
        file_of(chosen),
        artifact,
        resolved,
        folder / "sample.safetensors",
        console,
        images_limit=min(images_limit, len(resolved.dataset)),
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
    )
    cells = replay(sample, gamma_grid, alpha_grid)
    console.print(lab_table(cells).to_terminal())
    console.print(CAVEAT, markup=False)
    about = {"checkpoint": detector, "data": resolved.name}
    write_lab(folder / "lab.json", sample, cells, about)
    loss = find_trained_loss(resolved)
    write_heat_maps(
        folder / "lab.png",
        cells,
        trained=loss.parameters if resolved.config is not None and loss.is_exact else None,
        title=picture_title(beside, resolved.name, sample.num_images),
    )
    print_lines(console, f"written to {folder}")


def _sample(
    detector: Path,
    artifact: Artifact,
    resolved: ResolvedData,
    path: Path,
    console: Console,
    *,
    images_limit: int,
    batch_size: int,
    num_workers: int,
    device: str,
) -> LabSample:
    """The sample that was kept, or a new one, which is kept."""
    from retina.devices import pick_device
    from retina.errors import UserError
    from retina.instruments.anatomy.lab.sample import (
        fingerprint,
        load_sample,
        save_sample,
        take_sample,
    )
    from retina.instruments.anatomy.source import objective_of

    assigner = objective_of(resolved).assigner
    key = fingerprint(detector, resolved.dataset, images_limit, assigner.model_dump_json())
    sample = load_sample(path, key)
    where = f"taken from {path}"
    if sample is None:
        with progress(console, "looking at every anchor", images_limit) as advance:
            sample = take_sample(
                artifact,
                resolved.dataset,
                assigner=assigner.build(),
                device=pick_device(device),
                images_limit=images_limit,
                batch_size=batch_size,
                num_workers=num_workers,
                on_progress=advance,
            )
        save_sample(path, sample, key)
        where = f"kept in {path}"
    if not len(sample.own_class):
        raise UserError(
            f"{resolved.full_name}: no anchor of its {counted(sample.num_images, 'image')} is "
            "foreground: there is nothing to weigh against the background; look at images with "
            "objects"
        )
    print_lines(
        console,
        f"{counted(sample.num_images, 'image')}, {counted(sample.num_objects, 'object')}, "
        f"{sample.num_elements:,} anchors × classes, {len(sample.own_class):,} of them "
        f"positive; {where}",
    )
    return sample


def parse_gammas(text: str) -> tuple[float, ...]:
    """``0,0.5,2`` as numbers, rising.

    Raises:
        UserError: one is no number from 0 on.
    """
    import math

    from retina.errors import UserError

    gammas = []
    for word in _words(text):
        try:
            gamma = float(word)
        except ValueError:
            gamma = math.nan
        if not 0 <= gamma < math.inf:
            raise UserError(f"--gammas: '{word}' is no number from 0 on; write, say, 0,0.5,1,2,5")
        gammas.append(gamma)
    if not gammas:
        raise UserError("--gammas: give at least one, say 0,0.5,1,2,5")
    return tuple(sorted(set(gammas)))


def parse_alphas(text: str) -> tuple[float | None, ...]:
    """``0.25,0.5,none`` as numbers and None, rising, None last; 1 is none.

    Raises:
        UserError: one is neither ``none`` nor a number between 0 and 1.
    """
    from retina.errors import UserError
    from retina.instruments.number_formatting import off_is_none

    alphas = {off_is_none(parse_alpha(word, f"--alphas: '{word}'")) for word in _words(text)}
    if not alphas:
        raise UserError("--alphas: give at least one, say 0.25,0.5,none")
    return tuple(sorted(alphas, key=lambda alpha: 1.0 if alpha is None else alpha))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
