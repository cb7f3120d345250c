"""``retina loss anatomy``."""

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

if TYPE_CHECKING:
    from retina.experiment import ResolvedData
    from retina.instruments.anatomy.elements import FocalSetting
    from retina.instruments.anatomy.measuring import TrainedLoss


def command(
    detector: Detector,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    images_limit: Annotated[
        int | None,
        typer.Option("--images-limit", min=1, help="So many images, spread over the split."),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", min=0.0, help="Instead of the training's γ.")
    ] = None,
    alpha: Annotated[
        str | None, typer.Option("--alpha", help="Instead of the training's α; or none.")
    ] = None,
    output: Annotated[
        Path | None, output_option("Folder for anatomy.json and the pictures.")
    ] = None,
    batch_size: BatchSize = 4,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
) -> None:
    """Say how much of the loss and its gradient easy negatives, hard ones and positives make up.

    Over all anchors and classes, per level and per class; with histograms of p_t, and the
    cumulative losses and loss curves of the focal loss paper's figures 4 and 1. Where no data is
    named, it is that of the run that the detector lies in.

    Example: `retina loss anatomy runs/demo/checkpoints/best.safetensors --output anatomy`

    Example: `retina loss anatomy coco.safetensors --annotations val.json --images val/`
    """
    from retina.devices import pick_device
    from retina.instruments.anatomy.figures import write_figures
    from retina.instruments.anatomy.measuring import measure_anatomy
    from retina.instruments.anatomy.report import anatomy_table, summary, write_anatomy
    from retina.instruments.anatomy.source import find_trained_loss, objective_of, picture_title
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import load_detector, taken_for
    from retina.storage import make_folder

    console = make_console()
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
    loss = find_trained_loss(resolved)
    parameters = _overridden(loss.parameters, gamma, alpha)
    if output is not None:
        make_folder(output)  # before the work, not after it
    print_lines(console, *describe_report(resolved.full_name, resolved.dataset.report))
    print_lines(console, _about_loss(loss, parameters, resolved))
    num_images = min(len(resolved.dataset), images_limit or len(resolved.dataset))
    with progress(console, "looking at every anchor", num_images) as advance:
        anatomy = measure_anatomy(
            artifact,
            resolved.dataset,
            assigner=objective_of(resolved).assigner.build(),
            parameters=parameters,
            device=pick_device(device),
            images_limit=images_limit,
            batch_size=batch_size,
            num_workers=num_workers,
            on_progress=advance,
        )
    console.print(anatomy_table(anatomy).to_terminal())
    print_lines(console, *summary(anatomy))
    if output is not None:
        about = {"checkpoint": detector, "data": resolved.name, "loss": loss.kind}
        write_anatomy(output / "anatomy.json", anatomy, about)
        write_figures(
            output, anatomy, picture_title(Path(detector), resolved.name, anatomy.num_images)
        )
        print_lines(console, f"written to {output}")


def _overridden(parameters: FocalSetting, gamma: float | None, alpha: str | None) -> FocalSetting:
    import math
    from dataclasses import replace

    from retina.errors import UserError

    if gamma is not None and not 0 <= gamma < math.inf:
        raise UserError(f"--gamma {gamma:g}: write a finite number from 0 on, say 2")
    if gamma is not None:
        parameters = replace(parameters, gamma=gamma)
    if alpha is None:
        return parameters
    return replace(parameters, alpha=parse_alpha(alpha, "--alpha"))


def _about_loss(loss: TrainedLoss, parameters: FocalSetting, resolved: ResolvedData) -> str:
    if parameters != loss.parameters:
        return f"focal loss with {parameters}, as the options say"
    if resolved.config is None:
        return f"focal loss with {parameters}, the defaults: {resolved.why_no_config}"
    if loss.difference is not None:
        return (
            f"the training's loss is looked at through the sigmoid focal loss with {parameters}: "
            f"the groups are right, the sums are not the training's, since {loss.difference}"
        )
    return f"focal loss with {parameters}, as in the training"
