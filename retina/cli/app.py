"""The ``retina`` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina import __version__
from retina.cli import data, debug, loss

app = typer.Typer(
    name="retina",
    help="RetinaNet: train a dense single-stage detector, evaluate it, run it on images.\n\n"
    "Example: `retina train configs/my_data.yaml output_dir=runs/first`",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(loss.app, name="loss")
app.add_typer(debug.app, name="debug")
import_app = typer.Typer(
    help="Turn other projects' weights into a detector file.\n\n"
    "Example: `retina import torchvision COCO_V1 --variant v2 --output coco.safetensors`",
    no_args_is_help=True,
)
app.add_typer(import_app, name="import")

Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps, cpu.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, fp16, or auto (bf16 where it is fast).")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retina {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None: ...


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="Short for device=…")] = None,
) -> None:
    """Train a detector as a config says.

    Example: `retina train configs/my_data.yaml dataset.train.images=photos output_dir=runs/first`

    Several GPUs: `torchrun --nproc-per-node 8 -m retina train CONFIG.yaml`
    """
    from retina.cli.training import run_training

    changes = list(overrides or [])
    if device is not None:
        changes.append(f"device={device}")
    run_training(config, changes, resume=resume)


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option("--grid", help="What to try and for how long, a YAML file: docs/tuning.md."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder of the tuning; by default OUTPUT_DIR_tune."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Short for device=…")] = None,
) -> None:
    """Choose γ, then α, of the focal loss by short runs from one common start.

    Every AP comes with an interval from resampling the validation images. The same command goes on
    with a tuning that was stopped.

    Example: `retina tune configs/my_data.yaml --grid grid.yaml --output runs/tune`
    """
    from retina.cli.tuning import run_tuning

    changes = list(overrides or [])
    if device is not None:
        changes.append(f"device={device}")
    run_tuning(config, changes, grid_path=grid, output=output)


@app.command()
def doctor(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Folder of doctor.json and the pictures; by default OUTPUT_DIR_doctor.",
        ),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Write CONFIG.mended.yaml: CONFIG with the mends."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what trains a few steps or measures speed.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="Short for device=…")] = None,
) -> None:
    """Examine a set-up before training it: data, anchors, learning rate, speed, memory.

    Each finding says what is wrong, why it matters, and the change of the config that mends it.
    The exit code is 1 where a finding is severe.

    Example: `retina doctor configs/my_data.yaml --apply`
    """
    from retina.cli.doctor import DoctorRequest, run_doctor

    changes = list(overrides or [])
    if device is not None:
        changes.append(f"device={device}")
    run_doctor(
        DoctorRequest(config=config, overrides=changes, output=output, quick=quick, apply=apply)
    )


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A detector file (.safetensors).")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="COCO annotation file.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of its images.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Take the data set from this config instead …")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="… this split of it: train, validation or test.")
    ] = "validation",
    detections: Annotated[
        Path | None,
        typer.Option("--detections", help="Score this COCO results file; no detector is run."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write metrics.json and detections.json here.")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="hotcoco (fast) or pycocotools (the reference).")
    ] = "hotcoco",
    max_detections: Annotated[
        int | None,
        typer.Option("--max-detections", min=1, help="Detections per image that count."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 8,
    num_workers: Annotated[
        int, typer.Option("--num-workers", min=0, help="Processes that load images.")
    ] = 2,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Score a detector, or a results file, with the twelve COCO numbers.

    Example: `retina evaluate runs/demo/checkpoints/best.safetensors --annotations val.json
    --images val/ --output scores`

    Example: `retina evaluate --detections results.json --annotations val.json`
    """
    from retina.cli.evaluation import EvaluationRequest, run_evaluation

    run_evaluation(
        EvaluationRequest(
            checkpoint=checkpoint,
            annotations=annotations,
            images=images,
            config=config,
            split=split,
            detections=detections,
            output=output,
            backend=backend,
            max_detections=max_detections,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            precision=precision,
        )
    )


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A detector file (.safetensors).")],
    sources: Annotated[list[str], typer.Argument(help="Image files, folders or globs.")],
    output: Annotated[
        Path, typer.Option("--output", help="Folder for the pictures and detections.json.")
    ],
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            min=0.0,
            max=1.0,
            help="Keep detections above this score; by default the one stored in the detector.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 8,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Find objects in images: writes annotated pictures and one detections.json.

    A broken image is reported and the rest goes on; the exit code is then 1.

    Example: `retina predict runs/demo/checkpoints/best.safetensors photos/ --output found`
    """
    from retina.cli.prediction import run_prediction

    run_prediction(
        checkpoint,
        sources,
        output=output,
        score_threshold=score_threshold,
        batch_size=batch_size,
        device=device,
        precision=precision,
    )


@import_app.command("torchvision")
def import_torchvision(
    state_dict: Annotated[
        str,
        typer.Argument(
            help="A state dict (.pt, .pth, .safetensors), or the name of torchvision's own weights "
            "(COCO_V1), which are then downloaded."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="The detector file to write.")],
    variant: Annotated[str, typer.Option("--variant", help="v1 or v2.")] = "v2",
    categories: Annotated[
        Path | None,
        typer.Option(
            "--categories",
            help="Text file with one class name per line, or a COCO annotation file; without it "
            "torchvision's 91 COCO names where the weights have 91 outputs, else numbers.",
        ),
    ] = None,
    min_size: Annotated[int, typer.Option("--min-size", min=1, help="Shorter side.")] = 800,
    max_size: Annotated[int, typer.Option("--max-size", min=1, help="Longer side's limit.")] = 1333,
    norm_eps: Annotated[
        float | None,
        typer.Option(
            "--norm-eps",
            min=0.0,
            help="Epsilon of the backbone's batch norms: 0.0 for COCO_V1 of v1, else 1e-5.",
        ),
    ] = None,
) -> None:
    """Convert the weights of torchvision's RetinaNet.

    Example: `retina import torchvision retinanet_v2.pth --variant v2 --output coco.safetensors`
    """
    from retina.cli.importing import run_import

    run_import(
        state_dict,
        output=output,
        variant=variant,
        categories=categories,
        min_size=min_size,
        max_size=max_size,
        norm_eps=norm_eps,
    )
