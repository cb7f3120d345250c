"""Where reports are made: at the end of a training, and by ``retina evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from retina.artifact import load_artifact
from retina.datasets.coco_results import DetectionArrays, read_results
from retina.datasets.dataset import DetectionDataset
from retina.errors import RunError, UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.folder import DETECTIONS, EVALUATION, truth_sha256
from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.report.content import Report, ReportSource, build_report
from retina.evaluation.report.overlap import Overlap, find_overlap
from retina.evaluation.report.speed import Speed, measure_speed
from retina.evaluation.report.writing import REPORT, ImageReader, images_of, write_report
from retina.evaluation.scored_dataset import ScoredDataset
from retina.evaluation.scored_images import ScoredImages, taken_detections
from retina.experiment.building import Experiment
from retina.experiment.config import ExperimentConfig
from retina.experiment.parts import build_dataset
from retina.modeling.thresholds import ThresholdsConfig
from retina.runtime import Runtime
from retina.training.report_log import log_report


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a report says beside the scores.

    Attributes:
        source: what was scored, and on what.
        read_image: gives the images that the page shows.
        suggested_score: the score from which on detections are shown; None where none is known.
        thresholds: the same of each class, by label; None where they have none of their own.
        overlap: with the training set.
        speed: of the detector.
    """

    source: ReportSource
    read_image: ImageReader
    suggested_score: float | None = None
    thresholds: tuple[float, ...] | None = None
    overlap: Overlap | None = None
    speed: Speed | None = None


def report_scores(
    folder: Path,
    images: ScoredImages,
    found: DetectionArrays,
    scored: DetectionMetrics,
    about: Circumstances,
) -> Report:
    """Write the report of detections that have been scored.

    Args:
        folder: of the evaluation.
        images: what they were scored against.
        found: the detections.
        scored: their numbers.
        about: what else is known.

    Raises:
        UserError: a file may not be written.
        RunError: the disk is full.
    """
    found = taken_detections(found, images.truth)
    metrics = CocoMetrics(images.truth, max_detections=scored.max_detections)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    report = build_report(
        metrics,
        scored,
        source=replace(about.source, annotations_sha256=truth_sha256(images.truth)),
        file_names=dict(zip(images.truth.image_ids.tolist(), images.file_names, strict=True)),
        suggested_score=about.suggested_score,
        thresholds=about.thresholds,
        overlap=about.overlap,
        speed=about.speed,
    )
    write_report(folder, report, about.read_image)
    return report


def report_training(experiment: Experiment) -> Path | None:
    """Write the report of a training's best detector beside its detections.

    It is made from what the folder holds, so that it is the same after a resume.

    Returns:
        The page; None without a validation set, where nothing was evaluated, or where none is
        wanted.

    Raises:
        UserError: a file may not be written.
        RunError: the disk is full.
    """
    validation = experiment.trainer.validation
    config = experiment.config
    part, folder = config.dataset.validation, config.output_dir / EVALUATION
    if not config.evaluation.report or part is None:
        return None
    if validation.evaluator is None or not (folder / DETECTIONS).is_file():
        return None
    dataset = validation.evaluator.dataset
    name, detector = part.display_name, config.output_dir / "checkpoints" / "best.safetensors"
    images = ScoredDataset.of([dataset], [name]).images
    found = read_results(folder / DETECTIONS, images.truth)
    metrics = CocoMetrics(images.truth, backend=config.evaluation.backend)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    about = Circumstances(
        ReportSource(
            dataset=name,
            detector=str(detector),
            command=f"retina train {config.output_dir / 'config.yaml'}",
        ),
        images_of(dataset),
        suggested_score=suggested_score(load_artifact(detector).config.thresholds),
        overlap=find_overlap(experiment.datasets["train"], dataset),
        speed=measured_speed(validation.runtime, dataset),
    )
    report = report_scores(folder, images, found, metrics.compute(), about)
    log_report(config.output_dir, report, step=experiment.trainer.training_run.step)
    return folder / REPORT


def suggested_score(thresholds: ThresholdsConfig) -> float | None:
    """The score that was chosen for a detector's classes together; None where none was."""
    return None if thresholds.origin is None else thresholds.common


def class_thresholds(thresholds: ThresholdsConfig) -> tuple[float, ...] | None:
    """The score that was chosen for each class of a detector, by label; None where none was."""
    own = thresholds.per_class
    return None if own is None else tuple(thresholds.of_classes(len(own)).tolist())


def overlap_with_training(
    config: ExperimentConfig | None, dataset: DetectionDataset
) -> Overlap | None:
    """The near duplicates of a config's training set; None where there is none to be read."""
    if config is None or config.dataset.train is None:
        return None
    try:
        return find_overlap(build_dataset(config, "train", check_images=False), dataset)
    except UserError:  # the data may lie elsewhere by now, or be that of another machine
        return None


def measured_speed(runtime: Runtime, dataset: DetectionDataset) -> Speed | None:
    """The speed on some images of a split; None where one cannot be read, or has no room."""
    try:
        return measure_speed(runtime, dataset)
    except (UserError, RunError):
        return None
