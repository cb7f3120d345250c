"""``retina data split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.options import (
    Annotations,
    DataConfig,
    Images,
    Source,
    labelled_splits,
    output_option,
    split_option,
)
from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted


def command(
    output: Annotated[
        Path, output_option("A new folder for train/, validation/ and test/, in COCO's format.")
    ],
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: Annotated[str | None, split_option("none: the data has no splits")] = None,
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=1, help="Share of the images.")
    ] = 0.15,
    test: Annotated[
        float, typer.Option("--test", min=0, max=1, help="Share of the images; 0 makes none.")
    ] = 0.15,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same splits.")] = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="REGEX",
            help="Keep images together in whose paths it matches the same, its first parenthesis.",
        ),
    ] = None,
) -> None:
    """Divide a data set into train, validation and test.

    Each gets its share of every class. Near duplicates, frames of a video and copies of a photo
    stay in one split. Images are linked into the folder, or copied where links cannot be.

    Example: `retina data split photos --output photos_split`
    """
    from retina.datasets.duplicates import fingerprints_of, near_duplicates
    from retina.datasets.exports.coco import write_coco_folder
    from retina.datasets.exports.exported_images import require_images
    from retina.datasets.folder import FolderDataset
    from retina.datasets.splitting import divide
    from retina.errors import UserError

    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    if shares["train"] <= 0:
        raise UserError("--validation and --test leave no image for the training")
    console = make_console()
    found = labelled_splits(source, annotations, images, config, split)
    if len(found) > 1:
        raise UserError(
            f"the data has the splits {', '.join(found)} already; --split NAME divides one of them"
        )
    (resolved,) = found.values()
    dataset = resolved.dataset
    if not isinstance(dataset, FolderDataset):
        raise UserError("several data sets in one are split one by one: name one of them")
    require_images({"": dataset})
    with progress(console, "comparing", len(dataset)) as advance:
        fingerprints = fingerprints_of(dataset, on_image=advance)
    duplicates = near_duplicates(fingerprints)
    division = divide(dataset, duplicates, shares, seed=seed, group_by=group_by)
    with progress(console, "writing", len(dataset)) as advance:
        write_coco_folder(division.splits, output, advance)
    print_lines(console, f"{resolved.full_name}: {counted(len(dataset), 'image')}")
    print_lines(console, *(f"  {sentence}" for sentence in division.findings))
    for name, part in division.splits.items():
        report = part.report
        print_lines(
            console,
            f"{output}, {name}: {counted(report.num_images, 'image')}, "
            f"{counted(report.num_boxes, 'box')}",
        )
