"""``retina data suspects``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    Annotations,
    Data,
    DataConfig,
    Device,
    Images,
    Precision,
    TrainSplit,
    chosen_precision,
    output_option,
)
from retina.cli.output import describe_report, make_console, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from retina.datasets.dataset import DetectionDataset
    from retina.instruments.label_errors.ranking import LabelError
    from retina.tables import Table

NUM_SHOWN = 10


def command(
    detectors: Annotated[
        list[str],
        typer.Argument(
            metavar="DETECTOR...",
            help="A detector file, or several of one run, whose outputs are averaged; or a "
            "published one by its name: coco_v1, coco_v2.",
        ),
    ],
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
    output: Annotated[
        Path | None, output_option("Write suspects.html and suspects.json into this folder.")
    ] = None,
    minimum_score: Annotated[
        float, typer.Option("--minimum-score", min=0.0, max=1.0, help="Leave out what scores less.")
    ] = 0.1,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="The most label errors on the page.")
    ] = 300,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the errors that are made up to compare with.")
    ] = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Rank probable label errors: missing, wrong class, badly placed, spurious.

    Example: `retina data suspects runs/first/checkpoints/last.safetensors --images photos
    --annotations labels.json --output suspects`
    """
    from retina.datasets.categories import UnknownCategoriesError
    from retina.datasets.exports.exported_images import common_folder
    from retina.devices import pick_device, pick_precision
    from retina.errors import UserError
    from retina.experiment import DataOptions, resolve_data
    from retina.instruments.label_errors.detector import AveragedDetector
    from retina.instruments.label_errors.ranking import KINDS, find_label_errors
    from retina.instruments.label_errors.report import html_page, json_text
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import load_detector, taken_for
    from retina.storage import make_folder, write_text

    console = make_console()
    chosen = chosen_precision(precision)
    sources = [detector_given(detector, "DETECTOR") for detector in detectors]
    artifacts = [load_detector(source) for source in sources]
    print_lines(console, *(line for source in sources for line in taken_for(source)))
    where = pick_device(device)
    detector = AveragedDetector(artifacts, device=where, precision=pick_precision(chosen, where))
    try:
        resolved = resolve_data(
            DataOptions(
                source=data, annotations=annotations, images=images, config=config, split=split
            ),
            purpose="whose labels",
            default_split="train",
            categories=artifacts[0].categories,
        )
    except UnknownCategoriesError as error:
        # Not left out unasked: an object without its label would pass for one that lacks it.
        raise UserError(
            f"{error}; one of them that resembles a class of the detector may then be ranked as a "
            "missing label"
        ) from None
    dataset = resolved.dataset
    if output is not None:
        make_folder(output)  # before the work, not after it
    print_lines(console, *describe_report(resolved.full_name, dataset.report))
    with progress(console, "looking", len(dataset)) as advance:
        errors = find_label_errors(
            detector, dataset, minimum_score=minimum_score, seed=seed, on_progress=advance
        )
    counts = [(kind, sum(one.kind == kind for one in errors)) for kind in KINDS]
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts)
    print_lines(
        console,
        f"{counted(len(errors), 'possible label error')} with a score of {minimum_score:g} or "
        f"more: {kinds}",
    )
    if errors:
        console.print(_table(errors[:NUM_SHOWN], dataset).to_terminal())
    if output is not None:
        text = json_text(
            errors,
            dataset,
            images=resolved.images or common_folder(dataset),
            detectors=detectors,
            source=resolved.full_name,
            minimum_score=minimum_score,
        )
        write_text(output / "suspects.json", text)
        page = html_page(errors[:pictures], dataset, num_found=len(errors))
        write_text(output / "suspects.html", page)
        print_lines(console, f"written to {output}: suspects.html, suspects.json")


def _table(errors: Sequence[LabelError], dataset: DetectionDataset) -> Table:
    from retina.tables import Column, Table

    truth, names = dataset.ground_truth(), dataset.categories.distinct_names
    rows = []
    for one in errors:
        annotation, seen = one.annotation, one.suggestion
        has_label = annotation is not None
        rows.append(
            {
                "score": one.score,
                "kind": one.kind.replace("_", " "),
                "image": Path(dataset.file_path(one.image_index)).name,
                "id": int(truth.annotation_ids[annotation]) if has_label else "",
                "labelled": names[int(truth.category_labels[annotation])] if has_label else "",
                "seen": "" if seen is None else f"{names[seen.label]} {seen.score:.2f}",
            }
        )
    return Table(
        title=f"the first {len(errors)}",
        columns=(
            Column("image", "image"),
            Column("id", "id", justify="right"),
            Column("score", "score", "{:.2f}".format, justify="right"),
            Column("kind", "kind"),
            Column("labelled", "labelled"),
            Column("seen as", "seen"),
        ),
        rows=tuple(rows),
        num_keys=2,
    )
