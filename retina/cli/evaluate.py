"""``retina evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from retina.cli.options import (
    DETECTOR,
    Annotations,
    BatchSize,
    Data,
    DataConfig,
    Device,
    Images,
    NumWorkers,
    Precision,
    ScoredSplit,
    chosen_precision,
    output_option,
    scored_data,
)
from retina.cli.output import describe_report, make_console, print_lines, progress

if TYPE_CHECKING:
    from retina.evaluation.engines import Backend
    from retina.evaluation.metrics import DetectionMetrics


def command(
    detector: Annotated[str | None, typer.Argument(metavar="DETECTOR", help=DETECTOR)] = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    detections: Annotated[
        Path | None,
        typer.Option("--detections", help="Score this COCO results file; no detector is run."),
    ] = None,
    output: Annotated[
        Path | None,
        output_option("Write metrics.json, detections.json and ground_truth.json here."),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="hotcoco (fast) or pycocotools (the reference).")
    ] = "hotcoco",
    max_detections: Annotated[
        int | None,
        typer.Option("--max-detections", min=1, help="Detections per image that count."),
    ] = None,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Score a detector, or a results file, with the twelve COCO numbers.

    Where no data is named, it is that of the run that the detector lies in.

    Example: `retina evaluate runs/demo/checkpoints/best.safetensors --annotations val.json
    --images val/ --output scores`

    Example: `retina evaluate --detections results.json --annotations val.json`
    """
    from retina.datasets.coco_results import write_results
    from retina.errors import UserError, one_of
    from retina.evaluation.engines import Backend
    from retina.evaluation.folder import record_truth
    from retina.evaluation.summary import category_table, summary_table, write_metrics
    from retina.experiment import build_artifact_evaluator
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import load_detector, taken_for

    console = make_console()
    engine: Backend = one_of(backend, get_args(Backend), "--backend")
    if detections is not None:
        if detector is not None:
            raise UserError("give either a detector file or --detections, not both")
        if any(option is not None for option in (data, images, config, split)):
            raise UserError(
                "--detections is scored against --annotations alone; leave --data, --images, "
                "--config and --split away"
            )
        metrics, findings = _score_results(detections, annotations, engine, max_detections, output)
        print_lines(console, *findings)
    elif detector is not None:
        chosen = chosen_precision(precision)
        source = detector_given(detector, "DETECTOR")
        artifact = load_detector(source)
        print_lines(console, *taken_for(source))
        resolved = scored_data(
            source,
            artifact.categories,
            data,
            annotations,
            images,
            config,
            split,
            purpose="what to evaluate on",
        )
        dataset = resolved.dataset
        print_lines(console, *describe_report(resolved.full_name, dataset.report))
        runtime, evaluator = build_artifact_evaluator(
            artifact,
            dataset,
            device=device,
            precision=chosen,
            max_detections=max_detections,
            batch_size=batch_size,
            num_workers=num_workers,
            backend=engine,
        )
        with progress(console, "evaluating", len(dataset)) as advance:
            result = evaluator.run(runtime, on_progress=advance)
        if output is not None:
            path = output / "detections.json"
            write_results(path, result.image_ids, result.detections, dataset.categories)
            record_truth(output, dataset.ground_truth(), resolved.part)
        metrics = result.metrics
    else:
        raise UserError("give a detector file, or a results file with --detections")
    if output is not None:
        write_metrics(output / "metrics.json", metrics)
    console.print(category_table(metrics).to_terminal())
    console.print(summary_table(metrics).to_terminal())
    if not metrics.is_scored:
        print_lines(console, "nothing could be scored: the annotations have no object")
    if output is not None:
        print_lines(console, f"written to {output}")


def _score_results(
    detections: Path,
    annotations: Path | None,
    backend: Backend,
    max_detections: int | None,
    output: Path | None,
) -> tuple[DetectionMetrics, list[str]]:
    from retina.datasets.coco_results import read_results
    from retina.datasets.formats.coco import read_coco_annotations
    from retina.errors import UserError
    from retina.evaluation.coco_metrics import CocoMetrics
    from retina.evaluation.folder import keep_results

    if annotations is None:
        raise UserError("--detections needs --annotations: the file with the ground truth")
    table = read_coco_annotations(annotations)
    ground_truth = table.ground_truth()
    found = read_results(detections, ground_truth, table)
    metrics = CocoMetrics(ground_truth, backend=backend, max_detections=max_detections or 100)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    if output is not None:
        keep_results(output, detections, annotations, None, ground_truth)
    findings = [*table.findings, *found.findings]
    return metrics.compute(), [
        f"{annotations}: {table.num_images} images, {len(table.labels)} annotations; "
        f"{detections}: {len(found.scores)} detections in {len(set(found.image_ids.tolist()))} "
        "images",
        *(f"  {finding}" for finding in findings),
    ]
