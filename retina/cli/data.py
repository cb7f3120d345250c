"""``retina data``: making, checking and converting data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Make, check, describe and convert data sets.\n\n"
    "Example: `retina data check --images photos --annotations labels.json`",
    no_args_is_help=True,
)

Images = Annotated[Path, typer.Option("--images", help="Folder of the images.")]
Annotations = Annotated[
    Path, typer.Option("--annotations", help="COCO file, or folder of Pascal VOC XML files.")
]
Split = Annotated[
    Path | None, typer.Option("--split", help="Pascal VOC: file that lists the image names.")
]


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Where to write train/ and validation/.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Training images.")] = 600,
    validation_images: Annotated[
        int, typer.Option("--validation-images", min=1, help="Validation images.")
    ] = 150,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 0,
) -> None:
    """Generate a data set worth training on: ten classes of shapes in textured scenes.

    Example: `retina data synth data/demo --images 600 --validation-images 150 --seed 0`
    """
    from retina.cli.datasets import run_synth

    run_synth(folder, images=images, validation_images=validation_images, seed=seed)


@app.command()
def check(images: Images, annotations: Annotations, split: Split = None) -> None:
    """Read a data set as a training would, decode every image, and list what is wrong with it.

    The exit code is 1 where an image cannot be used.

    Example: `retina data check --images photos --annotations labels.json`
    """
    from retina.cli.datasets import run_check

    run_check(images, annotations, split)


@app.command()
def stats(images: Images, annotations: Annotations, split: Split = None) -> None:
    """Describe a data set: classes and their imbalance, sizes, occlusion, crowding.

    Example: `retina data stats --images photos --annotations labels.json`
    """
    from retina.cli.datasets import run_stats

    run_stats(images, annotations, split)


@app.command()
def convert(
    images: Images,
    annotations: Annotations,
    output: Annotated[Path, typer.Option("--output", help="The COCO file to write.")],
    split: Split = None,
) -> None:
    """Write any readable data set as one COCO annotation file.

    Example: `retina data convert --images JPEGImages --annotations Annotations --split
    ImageSets/Main/train.txt --output train.json`
    """
    from retina.cli.datasets import run_convert

    run_convert(images, annotations, split, output)


@app.command()
def corrupt(
    images: Images,
    annotations: Annotations,
    output: Annotated[
        Path, typer.Option("--output", help="Folder for annotations.json and corruption.json.")
    ],
    split: Split = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Errors per object, the kinds in equal parts …")
    ] = None,
    missing: Annotated[
        float | None, typer.Option("--missing", help="… or the rate of boxes taken away,")
    ] = None,
    wrong_class: Annotated[
        float | None, typer.Option("--wrong-class", help="of objects given another class,")
    ] = None,
    shifted: Annotated[
        float | None, typer.Option("--shifted", help="of boxes moved beside their object,")
    ] = None,
    spurious: Annotated[
        float | None, typer.Option("--spurious", help="and of boxes added on the background.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same errors.")] = 0,
) -> None:
    """Plant label errors on purpose, with the list of what was done.

    Example: `retina data corrupt --images photos --annotations labels.json --rate 0.1
    --output noisy`
    """
    from retina.cli.corruption import corruption_rates, run_corrupt

    rates = corruption_rates(
        rate, missing=missing, wrong_class=wrong_class, shifted=shifted, spurious=spurious
    )
    run_corrupt(images, annotations, split, output, rates=rates, seed=seed)


@app.command()
def anchors(
    config: Annotated[
        Path | None, typer.Argument(help="An experiment; or --images and --annotations.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the images.")] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="COCO file, or folder of Pascal VOC XML files."),
    ] = None,
    split: Split = None,
    min_size: Annotated[
        int | None, typer.Option("--min-size", min=1, help="Shorter side of the input (else 800).")
    ] = None,
    max_size: Annotated[
        int | None, typer.Option("--max-size", min=1, help="Limit of its longer side (else 1333).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write anchors.yaml, anchors.json and anchors.png there."),
    ] = None,
) -> None:
    """Propose anchors (sizes, scales, ratios, a level P2) with the coverage before and after.

    Example: `retina data anchors my_data.yaml --output anchors`

    Example: `retina data anchors --images photos --annotations labels.json --min-size 640
    --max-size 1066`
    """
    from retina.cli.anchors import AnchorsRequest, run_anchors

    run_anchors(
        AnchorsRequest(
            config=config,
            overrides=overrides or [],
            images=images,
            annotations=annotations,
            split=split,
            min_size=min_size,
            max_size=max_size,
            output=output,
        )
    )


@app.command()
def suspects(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="A detector file, or several of one run, whose outputs are averaged."),
    ],
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the images.")] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="COCO file, or folder of Pascal VOC XML files."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Take the data set from this config instead.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="With --config: train (default), validation or test. With Pascal VOC: the file "
            "that lists the image names.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write suspects.html and suspects.json into this folder."),
    ] = None,
    minimum_score: Annotated[
        float, typer.Option("--minimum-score", min=0.0, max=1.0, help="Leave out what scores less.")
    ] = 0.1,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="The most suspects on the page.")
    ] = 300,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the errors that are made up to compare with.")
    ] = 0,
    device: Annotated[
        str, typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, mps, cpu.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, bf16, fp16, or auto (bf16 where it is fast).")
    ] = "fp32",
) -> None:
    """Rank probable label errors: missing, wrong class, badly placed, spurious.

    Example: `retina data suspects runs/first/checkpoints/last.safetensors --images photos
    --annotations labels.json --output suspects`
    """
    from retina.cli.suspects import SuspectsRequest, run_suspects

    run_suspects(
        SuspectsRequest(
            checkpoints=checkpoints,
            images=images,
            annotations=annotations,
            split=split,
            config=config,
            output=output,
            minimum_score=minimum_score,
            pictures=pictures,
            seed=seed,
            device=device,
            precision=precision,
        )
    )
