"""``retina evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from retina.cli.options import (
    DETECTOR,
    BatchSize,
    Compile,
    Data,
    DataConfig,
    Device,
    MergeOption,
    NoFullImage,
    NumWorkers,
    Overlap,
    Precision,
    Resume,
    ScoredSplit,
    TestTime,
    Tile,
    output_option,
    views_given,
)
from retina.cli.output import make_console, print_lines
from retina.cli.run_beside import refuse_torchrun
from retina.cli.scored_detections import NamedData, Running, scored_by_running, scored_results

if TYPE_CHECKING:
    from rich.console import Console

    from retina.evaluation.metrics import DetectionMetrics
    from retina.evaluation.scoring import Scores
    from retina.runtime import Views


def command(
    detector: Annotated[str | None, typer.Argument(metavar="DETECTOR", help=DETECTOR)] = None,
    data: Data = None,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(
            "--annotations",
            help="Annotation file or folder, of any format; several times for several.",
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", help="The folder of their images, or one for each."),
    ] = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    detections: Annotated[
        list[Path] | None,
        typer.Option(
            "--detections",
            help="Score this COCO results file; no detector is run. Or one for each --annotations.",
        ),
    ] = None,
    image_list: Annotated[
        Path | None,
        typer.Option(
            "--image-list", help="Score only these images: file names or ids, one a line."
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="coco, voc (Pascal VOC's AP at 0.5) or lvis.")
    ] = "coco",
    ious: Annotated[
        str | None,
        typer.Option("--ious", help="AP at these IoUs and their mean: 0.5,0.75,0.9 or 0.50:0.95."),
    ] = None,
    per_image: Annotated[
        bool, typer.Option("--per-image", help="Write per_image.json: counts and AP of each image.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html and report.json.")
    ] = True,
    output: Annotated[
        Path | None, output_option("Write metrics.json and detections.json here.")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="hotcoco (fast) or pycocotools (the reference).")
    ] = "hotcoco",
    max_detections: Annotated[
        int | None,
        typer.Option("--max-detections", min=1, help="Detections per image that count."),
    ] = None,
    tile: Tile = None,
    overlap: Overlap = None,
    no_full_image: NoFullImage = False,
    test_time: TestTime = None,
    merge: MergeOption = "nms",
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 2,
    resume: Resume = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    compiled: Compile = False,
) -> None:
    """Score a detector, or a results file, with the twelve COCO numbers, VOC's or LVIS's.

    Where no data is named, it is that of the run that the detector lies in. Several processes
    (torchrun) share the images.

    With --tile or --test-time the AP without them is told beside it: what they gain.

    Example: `retina evaluate runs/demo/checkpoints/best.safetensors --annotations val.json
    --images val/ --output scores`

    Example: `retina evaluate --detections results.json --annotations val.json`
    """
    from retina.errors import UserError, one_of
    from retina.evaluation.engines import Backend
    from retina.evaluation.iou_metrics import parse_ious
    from retina.evaluation.scoring import MetricsName, ScoringOptions, score, write_scores
    from retina.experiment.reporting import report_scores

    console = make_console()
    options = ScoringOptions(
        metrics=one_of(metrics, get_args(MetricsName), "--metrics"),
        ious=None if ious is None else parse_ious(ious),
        per_image=per_image,
        backend=one_of(backend, get_args(Backend), "--backend"),
        max_detections=max_detections,
    )
    # LVIS labels not every class in every image, and a report counts every detection.
    makes_report = report and output is not None and options.metrics != "lvis"
    if per_image and output is None:
        raise UserError("--per-image writes a file: say where with --output FOLDER")
    if resume and output is None:
        raise UserError("--resume goes on in the folder of --output: name it")
    views = views_given(tile, overlap, no_full_image, test_time, merge)
    if detections:
        if views:
            raise UserError("--tile and --test-time run a detector: leave --detections away")
        if detector is not None:
            raise UserError("give either a detector file or --detections, not both")
        if any(option is not None for option in (data, config, split)):
            raise UserError(
                "--detections is scored against --annotations alone; leave --data, --config and "
                "--split away"
            )
        refuse_torchrun("retina evaluate --detections", "scores")
        scored = scored_results(
            console, detections, annotations or (), images or (), image_list, output
        )
    elif detector is not None:
        named = NamedData(data, annotations or (), images or (), config, split, image_list)
        running = Running(device, precision, compiled, batch_size, num_workers, resume, views)
        scored = scored_by_running(
            console, detector, named, running, options, output, makes_report=makes_report
        )
    else:
        raise UserError("give a detector file, or a results file with --detections")
    scores = score(scored.images, scored.found, options, coco=scored.coco)
    if scored.plain is not None:
        scores = replace(scores, views=views.to_json(), plain=scored.plain)
    if output is not None:
        write_scores(output, scores)
        if makes_report:
            report_scores(output, scored.images, scored.found, scores.coco, scored.about)
        elif report:
            print_lines(
                console, "no report: it counts every detection, and LVIS labels not every class"
            )
    _print_scores(console, scores, output)
    if scores.plain is not None and scores.plain.is_scored:
        print_lines(console, _gain(views, scores.coco, scores.plain))


def _gain(views: Views, with_them: DetectionMetrics, without: DetectionMetrics) -> str:
    """What more views have brought, in a line."""
    ap, plain_ap = with_them.AP, without.AP
    line = f"AP {ap:.3f} with {views.describe()}, {plain_ap:.3f} without"
    if with_them.APs < 0:
        return line
    return f"{line}; of small objects {with_them.APs:.3f} and {without.APs:.3f}"


def _print_scores(console: Console, scores: Scores, output: Path | None) -> None:
    from retina.evaluation.metric_tables import score_tables
    from retina.evaluation.summary import category_table, summary_table

    shown = score_tables(scores)
    if not scores.has_other_metrics:
        shown = [category_table(scores.coco), summary_table(scores.coco), *shown]
    for table in shown:
        console.print(table.to_terminal())
    if not scores.coco.is_scored:
        print_lines(console, "nothing could be scored: the annotations have no object")
    if output is not None:
        print_lines(console, f"written to {output}")
