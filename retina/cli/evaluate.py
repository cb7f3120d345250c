"""``retina evaluate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import typer

from retina.cli.options import (
    DETECTOR,
    BatchSize,
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
    chosen_precision,
    output_option,
    scored_data,
    views_given,
)
from retina.cli.output import describe_report, make_console, print_lines, progress
from retina.cli.run_beside import refuse_torchrun

if TYPE_CHECKING:
    from rich.console import Console

    from retina.datasets.coco_results import DetectionArrays
    from retina.evaluation.evaluator import EvaluationResult, Evaluator
    from retina.evaluation.metrics import DetectionMetrics
    from retina.evaluation.scored_dataset import ScoredDataset
    from retina.evaluation.scored_images import ScoredImages
    from retina.evaluation.scoring import Scores, ScoringOptions
    from retina.experiment import ResolvedData
    from retina.experiment.reporting import Circumstances
    from retina.modeling.detector_names import DetectorSource
    from retina.runtime import Runtime, Views
    from retina.structures import Categories


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
        scored = _read_results(
            console, detections, annotations or (), images or (), image_list, output
        )
    elif detector is not None:
        named = _Named(data, annotations or (), images or (), config, split, image_list)
        running = _Running(device, precision, batch_size, num_workers, resume, views)
        scored = _run_detector(
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


class _Named(NamedTuple):
    """What the options say about the data that a detector is run on."""

    data: Path | None
    annotations: Sequence[Path]
    images: Sequence[Path]
    config: Path | None
    split: str | None
    image_list: Path | None


class _Running(NamedTuple):
    """How a detector is run."""

    device: str
    precision: str
    batch_size: int
    num_workers: int
    resume: bool
    views: Views


class _Scored(NamedTuple):
    """What there is to score, what the report says beside it, and COCO's numbers where known.

    ``plain`` has those of the plain images, where the detector has looked at more than these.
    """

    images: ScoredImages
    found: DetectionArrays
    about: Circumstances
    coco: DetectionMetrics | None = None
    plain: DetectionMetrics | None = None


def _read_results(
    console: Console,
    detections: Sequence[Path],
    annotations: Sequence[Path],
    images: Sequence[Path],
    image_list: Path | None,
    output: Path | None,
) -> _Scored:
    from retina.datasets.formats import config_of
    from retina.evaluation.folder import clear_evaluation, keep_results, record_truth
    from retina.evaluation.report.content import ReportSource
    from retina.evaluation.report.writing import images_at
    from retina.evaluation.scored_images import folder_of_each, read_scored
    from retina.experiment.reporting import Circumstances

    scored, found = read_scored(annotations, detections, images)
    num_images = len(set(found.image_ids.tolist()))
    print_lines(
        console,
        f"{_joined(annotations)}: {len(scored)} images, {len(scored.truth.areas)} annotations; "
        f"{_joined(detections)}: {len(found.scores)} detections in {num_images} images",
    )
    if image_list is not None:
        scored = scored.listed_in(image_list)
    print_lines(console, *(f"  {finding}" for finding in (*scored.findings, *found.findings)))
    folders = folder_of_each(annotations, images)
    if output is not None:
        clear_evaluation(output, keep=detections)
    if output is not None and len(annotations) == 1:
        keep_results(output, detections[0])
        record_truth(
            output,
            scored.truth,
            config_of(annotations[0], folders[0]),
            image_ids=None if image_list is None else scored.ids,
        )
    source = ReportSource(
        dataset=_joined(annotations), detections=_joined(detections), command=_command_line()
    )
    about = Circumstances(source, images_at(scored.paths_in(folders)))
    return _Scored(scored, found, about)


def _command_line() -> str:
    return shlex.join(["retina", *sys.argv[1:]])


def _joined(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _run_detector(
    console: Console,
    name: str,
    named: _Named,
    running: _Running,
    options: ScoringOptions,
    output: Path | None,
    *,
    makes_report: bool,
) -> _Scored:
    from retina.devices import pick_device
    from retina.distributed import sharing_processes
    from retina.evaluation.folder import clear_evaluation, record_truth
    from retina.evaluation.report.content import ReportSource
    from retina.evaluation.report.writing import images_of
    from retina.experiment import build_evaluator
    from retina.experiment.data import training_config
    from retina.experiment.reporting import (
        Circumstances,
        class_thresholds,
        measured_speed,
        overlap_with_training,
        suggested_score,
    )
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, load_runtime, taken_for
    from retina.runtime.detection_log import UNFINISHED, DetectionLog, file_sha256
    from retina.runtime.files import is_export

    source = detector_given(name, "DETECTOR")
    # An export gives as many as it gives, in each tile.
    as_it_is = running.views.tile is not None and isinstance(source, Path) and is_export(source)
    runtime = load_runtime(
        source,
        device=running.device,
        precision=chosen_precision(running.precision),
        max_detections=None if as_it_is else options.made_detections,
    )
    print_lines(console, *taken_for(source))
    resolved = _resolved(source, runtime.categories, named)
    data = _data_of(console, resolved, named)
    evaluator = build_evaluator(
        runtime,
        data.dataset,
        max_detections=options.coco_cap,
        batch_size=running.batch_size,
        num_workers=running.num_workers,
        backend=options.backend,
    )
    settings = {
        "detector": file_sha256(file_of(source)),
        "precision": chosen_precision(running.precision),
        "detections per image": options.made_detections,
        "views": running.views.to_json(),
        "batch size": running.batch_size,  # images of several sizes are padded to one
    }
    looking = running.views.wrap(runtime, batch_size=running.batch_size)
    with sharing_processes(pick_device(running.device).type):
        plain = None
        if running.views:
            with progress(console, "evaluating plain images", len(data.dataset)) as advance:
                plain = evaluator.run(runtime, on_progress=advance).metrics
        result = _result(console, looking, evaluator, output, settings, resume=running.resume)
    if result is None:  # of several processes another one scores
        raise typer.Exit
    about = Circumstances(
        ReportSource(
            dataset=", ".join(one.full_name for one in resolved),
            detector=name,
            command=_command_line(),
        ),
        images_of(data.dataset),
        suggested_score=suggested_score(runtime.thresholds_config),
        thresholds=class_thresholds(runtime.thresholds_config),
    )
    if output is not None:
        clear_evaluation(output)
        data.write_results(output, result)
        DetectionLog(output / UNFINISHED).remove()
        if len(resolved) == 1:
            record_truth(
                output,
                data.images.truth,
                resolved[0].part,
                image_ids=None if named.image_list is None else data.images.ids,
            )
    if makes_report:
        about = replace(
            about,
            overlap=overlap_with_training(training_config(source), data.dataset),
            speed=None if running.views else measured_speed(runtime, data.dataset),
        )
    return _Scored(data.images, data.arrays(result), about, result.metrics, plain)


def _gain(views: Views, with_them: DetectionMetrics, without: DetectionMetrics) -> str:
    """What more views have brought, in a line."""
    ap, plain_ap = with_them.AP, without.AP
    line = f"AP {ap:.3f} with {views.describe()}, {plain_ap:.3f} without"
    if with_them.APs < 0:
        return line
    return f"{line}; of small objects {with_them.APs:.3f} and {without.APs:.3f}"


def _result(
    console: Console,
    runtime: Runtime,
    evaluator: Evaluator,
    output: Path | None,
    settings: Mapping[str, object],
    *,
    resume: bool,
) -> EvaluationResult | None:
    """What evaluating gives; None in all processes but the first."""
    from retina.distributed import is_main_process
    from retina.evaluation.folder import truth_sha256
    from retina.runtime.detection_log import UNFINISHED, DetectionLog, stopped_run

    if output is None:
        with progress(console, "evaluating", len(evaluator.dataset)) as advance:
            result = evaluator.run(runtime, on_progress=advance)
        return result if is_main_process() else None
    folder = output / UNFINISHED
    print_lines(console, *stopped_run(folder, resume=resume))
    data = {"data": truth_sha256(evaluator.dataset.ground_truth())}
    log = DetectionLog.begin(folder, {**data, **settings}, resume=resume)
    with progress(console, "evaluating", len(evaluator.dataset) - len(log.done)) as advance:
        return evaluator.run_logged(runtime, log, on_progress=advance)


def _resolved(source: DetectorSource, categories: Categories, named: _Named) -> list[ResolvedData]:
    """The data sets that are meant, one for each annotation file."""
    from retina.evaluation.scored_images import folder_of_each

    annotated: Sequence[Path | None] = named.annotations or (None,)
    folders = folder_of_each(annotated, named.images)
    return [
        scored_data(
            source,
            categories,
            named.data,
            annotations,
            images,
            named.config,
            named.split,
            purpose="what to evaluate on",
        )
        for annotations, images in zip(annotated, folders, strict=True)
    ]


def _data_of(console: Console, resolved: Sequence[ResolvedData], named: _Named) -> ScoredDataset:
    from retina.evaluation.scored_dataset import ScoredDataset

    names = [one.full_name for one in resolved]
    data = ScoredDataset.of([one.dataset for one in resolved], names, named.image_list)
    print_lines(console, *describe_report(", ".join(names), data.dataset.report))
    return data


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
