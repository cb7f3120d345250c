"""What ``retina evaluate`` scores: a results file, or what a detector finds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from retina.cli.options import chosen_precision, scored_data
from retina.cli.output import describe_truth, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from retina.datasets.coco_results import DetectionArrays
    from retina.evaluation.evaluator import EvaluationResult, Evaluator
    from retina.evaluation.metrics import DetectionMetrics
    from retina.evaluation.scored_dataset import ScoredDataset
    from retina.evaluation.scored_images import ScoredImages
    from retina.evaluation.scoring import ScoringOptions
    from retina.experiment import ResolvedData
    from retina.experiment.reporting import Circumstances
    from retina.modeling.detector_names import DetectorSource
    from retina.runtime import Runtime, Views
    from retina.structures import Categories


class NamedData(NamedTuple):
    """What the options say about the data that a detector is run on."""

    data: Path | None
    annotations: Sequence[Path]
    images: Sequence[Path]
    config: Path | None
    split: str | None
    image_list: Path | None


class Running(NamedTuple):
    """How a detector is run."""

    device: str
    precision: str
    compiled: bool
    batch_size: int
    num_workers: int
    resume: bool
    views: Views


class Scored(NamedTuple):
    """What there is to score, what the report says beside it, and COCO's numbers where known.

    ``plain`` has those of the plain images, where the detector has looked at more than these.
    """

    images: ScoredImages
    found: DetectionArrays
    about: Circumstances
    coco: DetectionMetrics | None = None
    plain: DetectionMetrics | None = None


def scored_results(
    console: Console,
    detections: Sequence[Path],
    annotations: Sequence[Path],
    images: Sequence[Path],
    image_list: Path | None,
    output: Path | None,
) -> Scored:
    """The detections of results files, and the annotations to score them against."""
    from retina.datasets.formats import config_of
    from retina.errors import UserError
    from retina.evaluation.folder import (
        clear_evaluation,
        joined_config,
        keep_results,
        record_truth,
    )
    from retina.evaluation.report.content import ReportSource
    from retina.evaluation.report.writing import images_at
    from retina.evaluation.scored_images import folder_of_each, read_scored
    from retina.experiment.reporting import Circumstances

    folders = folder_of_each(annotations, images)
    for folder in images:
        if not folder.is_dir():
            raise UserError(f"--images {folder}: there is no such folder")
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
    paths = scored.paths_in(folders)
    print_lines(console, *_images_not_found(paths, images))
    if output is not None:
        clear_evaluation(output, keep=detections)
        keep_results(output, detections)
        record_truth(
            output,
            scored.truth,
            joined_config([config_of(*each) for each in zip(annotations, folders, strict=True)]),
            image_ids=None if image_list is None else scored.truth.ids_in_file,
        )
    source = ReportSource(
        dataset=_joined(annotations), detections=_joined(detections), command=_command_line()
    )
    about = Circumstances(source, images_at(paths))
    return Scored(scored, found, about)


def _images_not_found(paths: Mapping[int, Path], images: Sequence[Path]) -> list[str]:
    """A line where the named folders do not hold all images, which the report then draws blank."""
    num_found = sum(path.is_file() for path in paths.values())
    if num_found == len(paths):
        return []
    found = f"{num_found} of {counted(len(paths), 'image')} found in {_joined(images)}"
    return [f"  {found}: the report shows boxes on a blank canvas for the others"]


def _command_line() -> str:
    return shlex.join(["retina", *sys.argv[1:]])


def _joined(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def scored_by_running(
    console: Console,
    name: str,
    named: NamedData,
    running: Running,
    options: ScoringOptions,
    output: Path | None,
    *,
    makes_report: bool,
) -> Scored:
    """What a detector finds in the data that is meant; ends all processes but the first."""
    from retina.devices import pick_device
    from retina.distributed import sharing_processes
    from retina.evaluation.folder import clear_evaluation, joined_config, record_truth
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
        compiled=running.compiled,
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
        **({"compiled": True} if running.compiled else {}),
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
        record_truth(
            output,
            data.images.truth,
            joined_config([one.part for one in resolved]),
            image_ids=None if named.image_list is None else data.images.truth.ids_in_file,
            results_categories=data.categories if len(resolved) > 1 else (),
        )
    if makes_report:
        about = replace(
            about,
            overlap=overlap_with_training(training_config(source), data.dataset),
            speed=None if running.views else measured_speed(runtime, data.dataset),
        )
    return Scored(data.images, data.arrays(result), about, result.metrics, plain)


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


def _resolved(
    source: DetectorSource, categories: Categories, named: NamedData
) -> list[ResolvedData]:
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


def _data_of(console: Console, resolved: Sequence[ResolvedData], named: NamedData) -> ScoredDataset:
    from retina.evaluation.scored_dataset import ScoredDataset

    names = [one.full_name for one in resolved]
    data = ScoredDataset.of([one.dataset for one in resolved], names, named.image_list)
    print_lines(console, *describe_truth(", ".join(names), data.dataset))
    return data
