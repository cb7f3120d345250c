"""``retina loss anatomy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from retina.analysis.anatomy.elements import FocalParameters
from retina.analysis.anatomy.measuring import TrainedLoss, measure_anatomy, trained_loss
from retina.analysis.anatomy.pictures import write_pictures
from retina.analysis.anatomy.report import anatomy_table, summary, write_anatomy
from retina.analysis.anatomy.result import LossAnatomy
from retina.artifact import load_artifact
from retina.cli.loss_source import LossSource, find_source
from retina.cli.training import describe_report
from retina.devices import pick_device
from retina.errors import UserError
from retina.losses.focal import check_alpha


@dataclass(frozen=True, slots=True)
class AnatomyRequest:
    """The arguments of the command."""

    checkpoint: Path
    data: Path | None
    annotations: Path | None
    images: Path | None
    config: Path | None
    split: str
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
    loss = trained_loss(source.objective.classification)
    parameters = _overridden(loss.parameters, request)
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
        write_pictures(request.output, anatomy, _title(request.checkpoint, source.name, anatomy))
        console.print(f"written to {request.output}", markup=False, soft_wrap=True)


def _overridden(parameters: FocalParameters, request: AnatomyRequest) -> FocalParameters:
    gamma = parameters.gamma if request.gamma is None else request.gamma
    if request.alpha is None:
        return FocalParameters(gamma, parameters.alpha)
    if request.alpha == "none":
        return FocalParameters(gamma, None)
    try:
        alpha = float(request.alpha)
        check_alpha(alpha)
    except ValueError as error:
        raise UserError(f"--alpha: write a number in (0, 1), or none ({error})") from None
    return FocalParameters(gamma, alpha)


def _title(checkpoint: Path, data: str, anatomy: LossAnatomy) -> str:
    """The end of the detector's path, and the data."""
    name = "/".join(part for part in checkpoint.parts[-4:] if part not in ("/", "checkpoints"))
    return f"{name} · {data}, {anatomy.num_images} images"


def _about_loss(loss: TrainedLoss, parameters: FocalParameters, source: LossSource) -> str:
    if parameters != loss.parameters:
        return f"focal loss with {parameters}, as the options say"
    if not source.has_config:
        return f"focal loss with {parameters}, the defaults: no config.yaml tells the training's"
    if not loss.is_exact:
        return (
            f"the training's loss ({loss.kind}) is looked at through the sigmoid focal loss with "
            f"{parameters}: the groups are right, the sums are not the training's"
        )
    return f"focal loss with {parameters}, as in the training"
