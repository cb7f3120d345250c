"""``retina data fix``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from retina.cli.options import (
    Annotations,
    DataConfig,
    Images,
    Source,
    TrainSplit,
    labelled_data,
    output_option,
)
from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from retina.datasets import FolderDataset
    from retina.datasets.annotations import AnnotationTable


def command(
    output: Annotated[
        Path,
        output_option("Folder for annotations.json (COCO) and changes.txt, a line for each."),
    ],
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
) -> None:
    """Write a copy of annotations as a training reads them, without images that are broken.

    Boxes in another format than (x, y, width, height) in pixels are turned into it where the doctor
    is sure of that; boxes are clipped or dropped, images listed several times merged, ids made
    whole. The images are not touched, and stay where they are.

    Example: `retina data fix --images photos --annotations labels.json --output fixed`
    """
    from retina.datasets import FolderConfig, FolderDataset, SourceConfig
    from retina.datasets.checking import check_dataset
    from retina.datasets.exports.coco import write_coco
    from retina.datasets.fixing import fix_annotations
    from retina.errors import UserError
    from retina.storage import make_folder, write_text

    console = make_console()
    resolved = labelled_data(source, annotations, images, config, split)
    dataset = resolved.dataset
    part = resolved.part.found if isinstance(resolved.part, SourceConfig) else resolved.part
    if not isinstance(dataset, FolderDataset) or not isinstance(part, FolderConfig):
        raise UserError("several data sets in one are fixed one by one: name one of them")
    path = output / "annotations.json"
    if any(path.resolve() == file.resolve() for file in resolved.part.annotation_files()):
        raise UserError(f"{path}: is what shall be fixed; choose another --output")
    make_folder(output)
    with progress(console, "decoding", len(dataset)) as advance:
        check = check_dataset(dataset, on_progress=advance)
    meant, told = _as_meant(dataset)
    table, changes = fix_annotations(part.read(), meant, check.broken_images)
    changes = (*told, *changes)
    fixed = FolderDataset(table, images=dataset.images)
    write_coco(fixed, path, images=dataset.images)
    write_text(output / "changes.txt", "".join(f"{change}\n" for change in changes))
    print_lines(console, f"{resolved.full_name}:", *(f"  {change}" for change in changes[:10]))
    if len(changes) > 10:
        print_lines(console, f"  … {len(changes)} changes in all: {output / 'changes.txt'}")
    print_lines(
        console,
        f"{path}: {counted(fixed.report.num_images, 'image')}, "
        f"{counted(fixed.report.num_boxes, 'box')}; its images are in {dataset.images}"
        if changes
        else f"nothing to fix; {path} says the same",
    )


def _as_meant(dataset: FolderDataset) -> tuple[AnnotationTable, tuple[str, ...]]:
    """The annotations with their boxes in the format that the doctor is sure of, and a change."""
    from retina.datasets.fixing import with_boxes
    from retina.registry import is_present

    if not is_present("retina.instruments.doctor"):
        return dataset.table, ()
    from retina.instruments.doctor.box_format import boxes_as_meant

    found = boxes_as_meant(dataset)
    if found is None:
        return dataset.table, ()
    boxes, what = found
    return with_boxes(dataset.table, boxes), (
        f"{what}: all are written as (x, y, width, height) in pixels",
    )
