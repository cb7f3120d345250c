"""``retina data suspects``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from retina.artifact import Artifact, load_artifact
from retina.cli.choices import one_of
from retina.cli.datasets import read_dataset
from retina.cli.training import describe_report
from retina.datasets.coco_export import common_folder
from retina.datasets.dataset import DetectionDataset
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.errors import UserError
from retina.experiment import build_dataset, load_experiment
from retina.instruments.label_errors.detector import AveragedDetector
from retina.instruments.label_errors.ranking import KINDS, LabelError, find_label_errors
from retina.instruments.label_errors.report import html_page, json_records
from retina.storage import make_folder, write_text

FORMAT_VERSION = 1
NUM_SHOWN = 10
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class SuspectsRequest:
    """The arguments of the command."""

    checkpoints: Sequence[Path]
    images: Path | None
    annotations: Path | None
    split: str | None
    config: Path | None
    output: Path | None
    minimum_score: float
    pictures: int
    seed: int
    device: str
    precision: str


def run_suspects(request: SuspectsRequest) -> None:
    """Rank the labels, print the first, and write the files that were asked for."""
    console = Console(highlight=False, soft_wrap=True)
    precision: PrecisionChoice = one_of(request.precision, get_args(PrecisionChoice), "--precision")
    artifacts = [load_artifact(path) for path in request.checkpoints]
    device = pick_device(request.device)
    detector = AveragedDetector(
        artifacts, device=device, precision=pick_precision(precision, device)
    )
    dataset = _dataset(request, artifacts[0])
    if request.output is not None:
        make_folder(request.output)  # before the work, not after it
    for line in describe_report(_source(request), dataset.report):
        console.print(line, markup=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking", total=len(dataset))
        suspects = find_label_errors(
            detector,
            dataset,
            minimum_score=request.minimum_score,
            seed=request.seed,
            on_progress=lambda n: progress.advance(task, n),
        )
    _print(suspects, dataset, request.minimum_score)
    if request.output is not None:
        _write(request, request.output, suspects, dataset)
        console.print(f"written to {request.output}: suspects.html, suspects.json", markup=False)


def _dataset(request: SuspectsRequest, artifact: Artifact) -> DetectionDataset:
    categories, antialias = artifact.categories, artifact.config.preprocess.antialias
    if request.config is not None:
        if request.images is not None or request.annotations is not None:
            raise UserError("give either --config or --images with --annotations, not both")
        split = one_of(request.split or SPLITS[0], SPLITS, "--split")
        return build_dataset(load_experiment(request.config, []), split, categories=categories)
    if request.images is None or request.annotations is None:
        raise UserError(
            "say whose labels: --images FOLDER --annotations FILE, or --config CONFIG --split NAME"
        )
    return read_dataset(
        request.images,
        request.annotations,
        None if request.split is None else Path(request.split),
        check_images=True,
        categories=categories,
        antialias=antialias,
    )


def _source(request: SuspectsRequest) -> str:
    """Whose labels are judged, in words."""
    if request.config is not None:
        return f"{request.config}, {request.split or SPLITS[0]}"
    if request.split is not None:
        return f"{request.annotations}, {request.split}"
    return str(request.annotations)


def _write(
    request: SuspectsRequest,
    folder: Path,
    suspects: Sequence[LabelError],
    dataset: DetectionDataset,
) -> None:
    images = common_folder(dataset) if request.images is None else request.images
    document = {
        "format_version": FORMAT_VERSION,
        "checkpoints": [str(path) for path in request.checkpoints],
        "source": _source(request),
        "num_images": len(dataset),
        "num_labels": dataset.report.num_boxes,
        "minimum_score": request.minimum_score,
        "suspects": json_records(suspects, dataset, images=images),
    }
    write_text(folder / "suspects.json", json.dumps(document, indent=1))
    shown = suspects[: request.pictures]
    write_text(folder / "suspects.html", html_page(shown, dataset, num_found=len(suspects)))


def _print(suspects: Sequence[LabelError], dataset: DetectionDataset, minimum_score: float) -> None:
    console = Console(highlight=False)
    counts = Counter(one.kind for one in suspects)
    kinds = ", ".join(f"{counts[kind]} {kind.replace('_', ' ')}" for kind in KINDS)
    console.print(
        f"{len(suspects)} suspects with a score of {minimum_score:g} or more: {kinds}",
        soft_wrap=True,
    )
    if not suspects:
        return
    truth, names = dataset.ground_truth(), dataset.categories.names
    table = Table(title=f"the first {min(NUM_SHOWN, len(suspects))}", title_justify="left")
    table.add_column("score", justify="right")
    table.add_column("kind", no_wrap=True)
    table.add_column("image", overflow="fold")
    table.add_column("id", justify="right")
    table.add_column("labelled", overflow="fold")
    table.add_column("seen as", overflow="fold")
    for one in suspects[:NUM_SHOWN]:
        annotation, seen = one.annotation, one.suggestion
        has_label = annotation is not None
        table.add_row(
            f"{one.score:.2f}",
            one.kind.replace("_", " "),
            escape(Path(dataset.file_path(one.image_index)).name),
            str(truth.annotation_ids[annotation]) if has_label else "",
            escape(names[int(truth.category_labels[annotation])]) if has_label else "",
            "" if seen is None else escape(f"{names[seen.label]} {seen.score:.2f}"),
        )
    console.print(table)
