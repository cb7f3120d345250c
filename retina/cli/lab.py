"""``retina loss lab``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from retina.artifact import Artifact, load_artifact
from retina.cli.loss_source import LossSource, find_source, picture_title, run_folder
from retina.devices import pick_device
from retina.errors import UserError
from retina.instruments.anatomy.lab.figure import write_heat_maps
from retina.instruments.anatomy.lab.replay import replay
from retina.instruments.anatomy.lab.report import CAVEAT, lab_table, write_lab
from retina.instruments.anatomy.lab.sample import (
    LabSample,
    fingerprint,
    load_sample,
    save_sample,
    take_sample,
)
from retina.instruments.number_formatting import off_is_none
from retina.losses.focal_parameters import check_alpha
from retina.storage import make_folder


@dataclass(frozen=True, slots=True)
class LabRequest:
    """The arguments of the command."""

    checkpoint: Path
    data: Path | None
    annotations: Path | None
    images: Path | None
    config: Path | None
    split: str | None
    images_limit: int
    gammas: str
    alphas: str
    output: Path | None
    batch_size: int
    num_workers: int
    device: str


def run_lab(request: LabRequest) -> None:
    """Take or load the sample, replay the grid, print the table and write the files."""
    console = Console(highlight=False)
    gammas, alphas = parse_gammas(request.gammas), parse_alphas(request.alphas)
    artifact = load_artifact(request.checkpoint)
    source = find_source(
        request, artifact.categories, antialias=artifact.config.preprocess.antialias
    )
    output = request.output or (run_folder(request.checkpoint) or request.checkpoint.parent) / "lab"
    make_folder(output)  # refused, where it must be, before anything is computed
    sample = _sample(request, artifact, source, output / "sample.safetensors", console)
    cells = replay(sample, gammas, alphas)
    console.print(lab_table(cells))
    console.print(CAVEAT, markup=False)
    about = {"checkpoint": str(request.checkpoint), "data": source.name}
    write_lab(output / "lab.json", sample, cells, about)
    loss = source.trained_loss()
    write_heat_maps(
        output / "lab.png",
        cells,
        trained=loss.parameters if source.has_config and loss.is_exact else None,
        title=picture_title(request.checkpoint, source.name, sample.num_images),
    )
    console.print(f"written to {output}", markup=False, soft_wrap=True)


def _sample(
    request: LabRequest, artifact: Artifact, source: LossSource, path: Path, console: Console
) -> LabSample:
    limit = min(request.images_limit, len(source.dataset))
    assigner = source.objective.assigner
    key = fingerprint(request.checkpoint, source.dataset, limit, assigner.model_dump_json())
    sample = load_sample(path, key)
    if sample is not None:
        told = f"taken from {path}"
    else:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("looking at every anchor", total=limit)
            sample = take_sample(
                artifact,
                source.dataset,
                assigner=assigner.build(),
                device=pick_device(request.device),
                images_limit=limit,
                batch_size=request.batch_size,
                num_workers=request.num_workers,
                on_progress=lambda n: progress.advance(task, n),
            )
        save_sample(path, sample, key)
        told = f"kept in {path}"
    if not len(sample.own_class):
        raise UserError(
            f"{source.name}: no anchor of its {sample.num_images} images is foreground: there is "
            "nothing to weigh against the background; look at images with objects"
        )
    console.print(
        f"{sample.num_images} images, {sample.num_objects} objects, {sample.num_elements:,} "
        f"anchors × classes, {len(sample.own_class):,} of them positive; {told}",
        markup=False,
        soft_wrap=True,
    )
    return sample


def parse_gammas(text: str) -> tuple[float, ...]:
    """``0,0.5,2`` as numbers, rising.

    Raises:
        UserError: one is no number from 0 on.
    """
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
    alphas: set[float | None] = set()
    for word in _words(text):
        try:
            alpha = None if word == "none" else float(word)
            check_alpha(alpha)
        except ValueError as error:
            raise UserError(
                f"--alphas: '{word}': write a number in (0, 1), or none ({error})"
            ) from None
        alphas.add(off_is_none(alpha))
    if not alphas:
        raise UserError("--alphas: give at least one, say 0.25,0.5,none")
    return tuple(sorted(alphas, key=lambda alpha: 1.0 if alpha is None else alpha))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
