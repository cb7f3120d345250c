"""The commands of ``retina data``."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from retina.cli.training import describe_report
from retina.datasets import CocoConfig, DetectionDataset, VocConfig
from retina.datasets.checking import check_dataset
from retina.datasets.coco_export import write_coco
from retina.datasets.statistics import dataset_statistics
from retina.datasets.synthetic import generate_dataset
from retina.errors import UserError
from retina.structures import Categories


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def run_synth(folder: Path, *, images: int, validation_images: int, seed: int) -> None:
    """Generate the data set, and say what it is made of."""
    console = _console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing", total=images + validation_images)
        report = generate_dataset(
            folder,
            num_images=images,
            num_validation_images=validation_images,
            seed=seed,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
        )
    outcome = {
        "created": "created",
        "kept": "is there already, as it would be made",
        "replaced": "replaced",
    }[report.outcome]
    console.print(f"{report.folder}: {outcome}, seed {seed}", markup=False)
    for split, statistics in report.statistics.items():
        console.print(
            f"  {split}: {statistics.num_images} images "
            f"({statistics.num_empty_images} empty), {statistics.num_boxes} boxes, "
            f"{statistics.num_crowd} crowd regions; commonest to rarest class "
            f"{statistics.imbalance:.0f} : 1, {statistics.by_box.small:.0%} of the boxes under 32² "
            f"pixels, {statistics.hidden_share or 0:.0%} partly hidden",
            markup=False,
        )


def read_dataset(
    images: Path,
    annotations: Path,
    split: Path | None,
    *,
    check_images: bool,
    categories: Categories | None = None,
    antialias: bool = False,
) -> DetectionDataset:
    """COCO where the annotations are a file, Pascal VOC where they are a folder."""
    if not annotations.exists():
        raise UserError(f"{annotations}: no such annotation file or folder")
    if annotations.is_dir():
        voc = VocConfig(kind="voc", images=images, annotations=annotations, split=split)
        return voc.build(categories, antialias=antialias, check_images=check_images)
    if split is not None:
        raise UserError("--split is for Pascal VOC, where --annotations is a folder of XML files")
    coco = CocoConfig(images=images, annotations=annotations)
    return coco.build(categories, antialias=antialias, check_images=check_images)


def run_check(images: Path, annotations: Path, split: Path | None) -> None:
    """Decode every image, print the findings, and exit with 1 where an image is broken."""
    console = _console()
    dataset = read_dataset(images, annotations, split, check_images=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding", total=len(dataset))
        check = check_dataset(dataset, on_progress=lambda n: progress.advance(task, n))
    for line in describe_report(str(annotations), check.report):
        console.print(line, markup=False)
    for finding in check.findings:
        console.print(f"  {finding}", markup=False)
    if check.broken_images:
        console.print(f"{len(check.broken_images)} images cannot be used:", markup=False)
        for message in check.broken_images:
            console.print(f"  {message}", markup=False)
        sys.exit(1)
    console.print("every image can be used", markup=False)


def run_stats(images: Path, annotations: Path, split: Path | None) -> None:
    """Print the statistics as two tables."""
    console = Console(highlight=False)
    statistics = dataset_statistics(read_dataset(images, annotations, split, check_images=False))
    classes = Table(title="classes", title_justify="left")
    classes.add_column("class", overflow="fold")
    classes.add_column("boxes", justify="right")
    classes.add_column("share", justify="right")
    for name, count in sorted(statistics.class_counts, key=lambda row: -row[1]):
        share = count / max(1, statistics.num_boxes)
        classes.add_row(escape(name), str(count), f"{share:.1%}")
    console.print(classes)
    facts = Table(title=escape(str(annotations)), title_justify="left", show_header=False)
    facts.add_column("what")
    facts.add_column("value", justify="right")
    for what, value in statistics.rows():
        facts.add_row(what, value)
    console.print(facts)


def run_convert(images: Path, annotations: Path, split: Path | None, output: Path) -> None:
    """Write the data set as a COCO file."""
    dataset = read_dataset(images, annotations, split, check_images=False)
    write_coco(dataset, output)
    report = dataset.report
    _console().print(
        f"{output}: {report.num_images} images, {report.num_boxes} boxes, "
        f"{len(dataset.categories)} categories",
        markup=False,
    )
