"""``retina loss anatomy``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from retina.artifact import load_artifact
from retina.cli.loss_source import LossSource, find_source, picture_title
from retina.cli.training import describe_report
from retina.devices import pick_device
from retina.errors import UserError
from retina.instruments.anatomy.elements import FocalSetting
from retina.instruments.anatomy.figures import write_figures
from retina.instruments.anatomy.measuring import TrainedLoss, measure_anatomy
from retina.instruments.anatomy.report import anatomy_table, summary, write_anatomy
from retina.losses.focal_parameters import check_alpha
from retina.storage import make_folder


@dataclass(frozen=True, slots=True)
class AnatomyRequest:
    """The arguments of the command."""

    checkpoint: Path
    data: Path | None
    annotations: Path | None
    images: Path | None
    config: Path | None
    split: str | None
    images_limit: int | None
    gamma: float | None
    alpha: str | None
    output: Path | None
    batch_size: int
    num_workers: int
    device: str


def run_anatomy(request: AnatomyRequest) -> None:
    """Measure, print the table, and write the files that were asked for."""
    console = Console(highlight=False)
    artifact = load_artifact(request.checkpoint)
    source = find_source(
        request, artifact.categories, antialias=artifact.config.preprocess.antialias
    )
    loss = source.trained_loss()
    parameters = _overridden(loss.parameters, request)
    if request.output is not None:
        make_folder(request.output)  # before the work, not after it
    for line in describe_report(source.name, source.dataset.report):
        console.print(line, markup=False, soft_wrap=True)
    console.print(_about_loss(loss, parameters, source), markup=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        num_images = min(len(source.dataset), request.images_limit or len(source.dataset))
        task = progress.add_task("looking at every anchor", total=num_images)
        anatomy = measure_anatomy(
            artifact,
            source.dataset,
            assigner=source.objective.assigner.build(),
            parameters=parameters,
            device=pick_device(request.device),
            images_limit=request.images_limit,
            batch_size=request.batch_size,
            num_workers=request.num_workers,
            on_progress=lambda n: progress.advance(task, n),
        )
    console.print(anatomy_table(anatomy))
    for line in summary(anatomy):
        console.print(line, markup=False, soft_wrap=True)
    if request.output is not None:
        about = {"checkpoint": str(request.checkpoint), "data": source.name, "loss": loss.kind}
        write_anatomy(request.output / "anatomy.json", anatomy, about)
        title = picture_title(request.checkpoint, source.name, anatomy.num_images)
        write_figures(request.output, anatomy, title)
        console.print(f"written to {request.output}", markup=False, soft_wrap=True)


def _overridden(parameters: FocalSetting, request: AnatomyRequest) -> FocalSetting:
    gamma = parameters.gamma if request.gamma is None else request.gamma
    if request.gamma is not None and not 0 <= request.gamma < math.inf:
        raise UserError(f"--gamma {request.gamma:g}: write a finite number from 0 on, say 2")
    if request.alpha is None:
        return FocalSetting(gamma, parameters.alpha)
    if request.alpha == "none":
        return FocalSetting(gamma, None)
    try:
        alpha = float(request.alpha)
        check_alpha(alpha)
    except ValueError as error:
        raise UserError(f"--alpha: write a number in (0, 1), or none ({error})") from None
    return FocalSetting(gamma, alpha)


def _about_loss(loss: TrainedLoss, parameters: FocalSetting, source: LossSource) -> str:
    if parameters != loss.parameters:
        return f"focal loss with {parameters}, as the options say"
    if not source.has_config:
        return f"focal loss with {parameters}, the defaults: {source.why_no_config}"
    if loss.difference is not None:
        return (
            f"the training's loss is looked at through the sigmoid focal loss with {parameters}: "
            f"the groups are right, the sums are not the training's, since {loss.difference}"
        )
    return f"focal loss with {parameters}, as in the training"
