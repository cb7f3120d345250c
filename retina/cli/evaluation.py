"""``retina evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import Progress

from retina.artifact import load_artifact
from retina.cli.choices import one_of
from retina.cli.training import describe_report
from retina.datasets.coco import CocoConfig, read_coco_ground_truth
from retina.datasets.coco_results import read_results, write_results
from retina.datasets.dataset import DetectionDataset
from retina.devices import PrecisionChoice
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import Backend
from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.report import category_table, summary_table, write_metrics
from retina.experiment import build_artifact_evaluator, build_dataset, load_experiment
from retina.structures import Categories


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """The arguments of the command."""

    checkpoint: Path | None
    annotations: Path | None
    images: Path | None
    config: Path | None
    split: str
    detections: Path | None
    output: Path | None
    backend: str
    max_detections: int | None
    batch_size: int
    num_workers: int
    device: str
    precision: str


def run_evaluation(request: EvaluationRequest) -> None:
    """Score, print the tables, and write the files that were asked for."""
    console = Console(highlight=False)
    one_of(request.backend, get_args(Backend), "--backend")
    if request.detections is not None:
        metrics = _score_results(request)
    elif request.checkpoint is not None:
        metrics = _score_detector(request, request.checkpoint, console)
    else:
        raise UserError("give a detector file, or a results file with --detections")
    if request.output is not None:
        write_metrics(request.output / "metrics.json", metrics)
    console.print(category_table(metrics))
    console.print(summary_table(metrics))
    if request.output is not None:
        console.print(f"written to {request.output}", markup=False, soft_wrap=True)


def _score_results(request: EvaluationRequest) -> DetectionMetrics:
    if request.annotations is None or request.detections is None:
        raise UserError("--detections needs --annotations: the file with the ground truth")
    if request.checkpoint is not None:
        raise UserError("give either a detector file or --detections, not both")
    ground_truth = read_coco_ground_truth(request.annotations)
    found = read_results(request.detections, ground_truth)
    metrics = CocoMetrics(
        ground_truth,
        backend=one_of(request.backend, get_args(Backend), "--backend"),
        max_detections=request.max_detections or 100,
    )
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics.compute()


def _score_detector(
    request: EvaluationRequest, checkpoint: Path, console: Console
) -> DetectionMetrics:
    precision: PrecisionChoice = one_of(request.precision, get_args(PrecisionChoice), "--precision")
    artifact = load_artifact(checkpoint)
    dataset = _dataset(request, artifact.categories, antialias=artifact.config.preprocess.antialias)
    for line in describe_report(str(request.annotations or request.split), dataset.report):
        console.print(line, markup=False, soft_wrap=True)
    runtime, evaluator = build_artifact_evaluator(
        artifact,
        dataset,
        device=request.device,
        precision=precision,
        max_detections=request.max_detections,
        batch_size=request.batch_size,
        num_workers=request.num_workers,
        backend=one_of(request.backend, get_args(Backend), "--backend"),
    )
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(dataset))
        result = evaluator.run(runtime, on_progress=lambda n: progress.advance(task, n))
    if request.output is not None:
        write_results(
            request.output / "detections.json",
            result.image_ids,
            result.detections,
            dataset.categories,
        )
    return result.metrics


def _dataset(
    request: EvaluationRequest, categories: object, *, antialias: bool
) -> DetectionDataset:

    assert isinstance(categories, Categories)
    if request.config is not None:
        if request.annotations is not None or request.images is not None:
            raise UserError("give either --config or --annotations with --images, not both")
        one_of(request.split, ("train", "validation", "test"), "--split")
        config = load_experiment(request.config, [])
        return build_dataset(config, request.split, categories=categories)
    if request.annotations is None or request.images is None:
        raise UserError(
            "say what to evaluate on: --annotations FILE --images FOLDER, or --config CONFIG "
            "--split NAME"
        )
    coco = CocoConfig(images=request.images, annotations=request.annotations)
    return coco.build(categories=categories, antialias=antialias)
