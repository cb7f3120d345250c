"""``retina data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.options import (
    Annotations,
    DataConfig,
    EverySplit,
    Images,
    Source,
    labelled_data,
    labelled_splits,
    output_option,
)
from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted


def command(
    output: Annotated[
        Path,
        output_option("A folder for all splits with their images; or a COCO file, FILE.json."),
    ],
    source: Source = None,
    to: Annotated[str, typer.Option("--to", help="coco, yolo, voc or csv.")] = "coco",
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: EverySplit = None,
) -> None:
    """Write any readable data set in another format.

    Images are linked into the folder, or copied where links cannot be; the source is not touched. A
    single file, FILE.json, holds one split (by default train), and its images stay where they are.

    Example: `retina data convert photos --to yolo --output photos_yolo`
    """
    from retina.datasets.exports import WRITERS
    from retina.datasets.exports.coco import write_coco
    from retina.errors import UserError, one_of

    write = WRITERS[one_of(to, list(WRITERS), "--to")]
    console = make_console()
    if output.suffix.lower() == ".json":
        if to != "coco":
            raise UserError(f"--output {output}: a single file is COCO's; for {to} name a folder")
        resolved = labelled_data(source, annotations, images, config, split)
        if any(output.resolve() == file.resolve() for file in resolved.part.annotation_files()):
            raise UserError(f"{output}: is what shall be converted; choose another --output")
        write_coco(resolved.dataset, output)
        told: tuple[str, ...] = ()
        written = {"": resolved}
    else:
        written = labelled_splits(source, annotations, images, config, split)
        datasets = {name: resolved.dataset for name, resolved in written.items()}
        with progress(console, "writing", sum(map(len, datasets.values()))) as advance:
            told = write(datasets, output, advance)
    for name, resolved in written.items():
        report = resolved.dataset.report
        print_lines(
            console,
            f"{output}{name and ', '}{name}: {counted(report.num_images, 'image')}, "
            f"{counted(report.num_boxes, 'box')}, "
            f"{counted(len(resolved.dataset.categories), 'category')}",
        )
    print_lines(console, *(f"  {sentence}" for sentence in told))
