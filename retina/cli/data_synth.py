"""``retina data synth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted

_OUTCOMES = {
    "created": "created",
    "kept": "is there already, as it would be made",
    "replaced": "replaced",
}


def command(
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
    from retina.datasets.synthetic import generate_dataset

    console = make_console()
    with progress(console, "drawing", images + validation_images) as advance:
        report = generate_dataset(
            folder,
            num_images=images,
            num_validation_images=validation_images,
            seed=seed,
            on_image=lambda done, total: advance(1),
        )
    print_lines(console, f"{report.folder}: {_OUTCOMES[report.outcome]}, seed {seed}")
    for split, shown in report.statistics.items():
        print_lines(
            console,
            f"  {split}: {counted(shown.num_images, 'image')} ({shown.num_empty_images} empty), "
            f"{counted(shown.num_boxes, 'box')}, "
            f"{counted(shown.num_crowd, 'crowd region')}; commonest to rarest class "
            f"{shown.imbalance:.0f} : 1, {shown.by_box.small:.0%} of the boxes under 32² pixels, "
            f"{shown.hidden_share or 0:.0%} partly hidden",
        )
