"""``retina loss``: what a classification loss spends itself on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Look into the classification loss of a trained detector.\n\n"
    "Example: `retina loss anatomy runs/demo/checkpoints/best.safetensors`",
    no_args_is_help=True,
)


# The options that name the detector, the data and the machine are those of both commands.
Checkpoint = Annotated[Path, typer.Argument(help="A detector file (.safetensors).")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Short for --config (a .yaml file) or --annotations (any other file); without "
        "data the config.yaml of the run that the detector lies in.",
    ),
]
Annotations = Annotated[Path | None, typer.Option("--annotations", help="COCO annotation file.")]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of its images.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Take the data set from this config instead …")
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="… this split of it: train, validation or test.",
        show_default="validation",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")]
NumWorkers = Annotated[
    int, typer.Option("--num-workers", min=0, help="Processes that load images.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps, cpu.")
]


@app.callback()
def _group() -> None:
    """Keeps the group a group while it has a single command."""


@app.command()
def anatomy(
    checkpoint: Checkpoint,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: Config = None,
    split: Split = None,
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
        Path | None,
        typer.Option("--output", help="Folder for anatomy.json and the pictures."),
    ] = None,
    batch_size: BatchSize = 4,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
) -> None:
    """Say how much of the loss and its gradient easy negatives, hard ones and positives make up.

    Over all anchors and classes, per level and per class; with histograms of p_t, and the
    cumulative losses and loss curves of the focal loss paper's figures 4 and 1.

    Example: `retina loss anatomy runs/demo/checkpoints/best.safetensors --output anatomy`

    Example: `retina loss anatomy coco.safetensors --annotations val.json --images val/`
    """
    from retina.cli.anatomy import AnatomyRequest, run_anatomy

    run_anatomy(
        AnatomyRequest(
            checkpoint=checkpoint,
            data=data,
            annotations=annotations,
            images=images,
            config=config,
            split=split,
            images_limit=images_limit,
            gamma=gamma,
            alpha=alpha,
            output=output,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
        )
    )


@app.command()
def lab(
    checkpoint: Checkpoint,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: Config = None,
    split: Split = None,
    images_limit: Annotated[
        int, typer.Option("--images-limit", min=1, help="So many images, spread over the split.")
    ] = 200,
    gammas: Annotated[str, typer.Option("--gammas", help="To try.")] = "0,0.5,1,2,5",
    alphas: Annotated[
        str, typer.Option("--alphas", help="To try with each; none weighs nothing.")
    ] = "0.1,0.25,0.5,0.75,0.9",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Folder for the sample, lab.json and lab.png; by default lab/ in the run folder.",
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
    from retina.cli.lab import LabRequest, run_lab

    run_lab(
        LabRequest(
            checkpoint=checkpoint,
            data=data,
            annotations=annotations,
            images=images,
            config=config,
            split=split,
            images_limit=images_limit,
            gammas=gammas,
            alphas=alphas,
            output=output,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
        )
    )
