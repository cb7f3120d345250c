"""The content of a report: everything that ``report.json`` holds and ``report.html`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from retina.evaluation.bootstrap import draw_multiplicities
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.matching import within_cap
from retina.evaluation.metrics import METRIC_NAMES, CategoryMetrics, DetectionMetrics
from retina.evaluation.report.breakdown import Breakdown, break_down
from retina.evaluation.report.calibration import Calibration, calibration
from retina.evaluation.report.confusion import Confusion, confusion_matrix, find_claims
from retina.evaluation.report.curves import RecallCurves, recall_curves
from retina.evaluation.report.gallery import Gallery, make_gallery
from retina.evaluation.report.json_form import report_json
from retina.evaluation.report.label_errors import ap_without, find_label_errors
from retina.evaluation.report.operating_points import (
    Counts,
    OperatingPoint,
    best_score,
    count_at_stops,
    operating_points,
)
from retina.evaluation.report.overlap import Overlap
from retina.evaluation.report.recall import RecallReport, recall_report
from retina.evaluation.report.scored_split import IOUS, STOPS, ScoredSplit, stop_at
from retina.evaluation.report.speed import Speed
from retina.evaluation.report.tide import Tide, tide_errors
from retina.evaluation.report.verdict import Evidence, Sentence, verdict
from retina.evaluation.resampled_metrics import (
    CONFIDENCE,
    Interval,
    metric_intervals,
    num_resamples_for,
    resampled_metrics,
)
from retina.structures import FloatArray

NUM_RESAMPLES = 1000
"""Of the bootstrap, as a rule; large sets get fewer."""

_WITHOUT_SUGGESTION = 0.5


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What was scored, and on what.

    Attributes:
        dataset: the name of the data.
        detector: the name of the detector; None for a results file.
        detections: the name of the results file; None for a detector.
        annotations_sha256: of what was scored against: see `retina.evaluation.folder.truth_sha256`.
        command: that was given; None where there was none.
        date: when, with its time zone.
    """

    dataset: str
    detector: str | None = None
    detections: str | None = None
    annotations_sha256: str | None = None
    command: str | None = None
    date: datetime = field(default_factory=lambda: datetime.now().astimezone())


@dataclass(frozen=True, slots=True)
class ReportMetric:
    """One of the twelve numbers and its interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class AtIou:
    """What a report says at one IoU."""

    counts: Counts
    confusion: Confusion
    curves: RecallCurves


@dataclass(frozen=True, slots=True)
class LabelErrorSummary:
    """How many labels are probably wrong, and AP without them; None without objects."""

    num: int
    AP_without: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report; see ``docs/file-formats.md`` for what ``to_json`` gives.

    Attributes:
        source: what was scored.
        num_images, num_objects, num_crowd, num_detections: of the split.
        max_detections: of a class in an image that count for the twelve numbers, the best first.
        num_beyond_cap: detections that do not, but are counted everywhere else.
        score_range: the lowest and the highest score; None without detections.
        metrics: the twelve numbers by name.
        confidence: of their intervals.
        num_resamples: that the intervals are made from.
        verdict: three sentences.
        categories: in the order of the labels.
        suggested_score: a score threshold to start from; None where nothing is found.
        thresholds: the detector's own, by label; None where it has none for each class.
        operating_points: at IoU 0.5, over all classes.
        at_iou: by IoU, as ``0.50``.
        tide, calibration, breakdown, recall, gallery, label_errors: the analyses.
        overlap: with the training set; None where that is not known.
        speed: None for a results file.
    """

    source: ReportSource
    num_images: int
    num_objects: int
    num_crowd: int
    num_detections: int
    max_detections: int
    num_beyond_cap: int
    score_range: tuple[float, float] | None
    metrics: Mapping[str, ReportMetric]
    confidence: float
    num_resamples: int
    verdict: tuple[Sentence, ...]
    categories: tuple[CategoryMetrics, ...]
    suggested_score: float | None
    thresholds: tuple[float, ...] | None
    operating_points: tuple[OperatingPoint, ...]
    at_iou: Mapping[str, AtIou]
    tide: Tide | None
    calibration: Calibration | None
    breakdown: Breakdown
    recall: RecallReport
    gallery: Gallery
    label_errors: LabelErrorSummary
    overlap: Overlap | None
    speed: Speed | None

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds: plain numbers, None where there is nothing to say."""
        return report_json(self)


def build_report(
    metrics: CocoMetrics,
    result: DetectionMetrics,
    *,
    source: ReportSource,
    file_names: Mapping[int, str] | None = None,
    suggested_score: float | None = None,
    thresholds: tuple[float, ...] | None = None,
    overlap: Overlap | None = None,
    speed: Speed | None = None,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Report:
    """Analyse what was detected on a split.

    Args:
        metrics: holds the detections and the ground truth. In a process group every rank must call
            this.
        result: what its ``compute`` gave.
        source: what was scored.
        file_names: by the image ids of the ground truth.
        suggested_score: the threshold that is used elsewhere; None for the best mean F1.
        thresholds: those of each class, where the detector has them, by label.
        overlap: with the training set.
        speed: of the detector.
        num_resamples: of the bootstrap; large sets get fewer.
        confidence: of the intervals.
        seed: of the resamples.
    """
    split, truth = ScoredSplit.of(metrics), metrics.ground_truth
    counts = [count_at_stops(split, matching) for matching in split.matchings]
    claims = [find_claims(split, matching) for matching in split.matchings]
    at_iou = {
        f"{iou:.2f}": AtIou(
            counts[row],
            confusion_matrix(split, counts[row], claims[row]),
            recall_curves(result, iou),
        )
        for row, iou in enumerate(IOUS)
    }
    if suggested_score is None:
        suggested_score = best_score(counts[0])
    if suggested_score is not None:  # one point for the slider, the verdict and the gallery
        suggested_score = float(STOPS[stop_at(suggested_score)])
    score = _WITHOUT_SUGGESTION if suggested_score is None else suggested_score
    errors = find_label_errors(split, split.matchings[0])
    summary = LabelErrorSummary(len(errors), ap_without(split, errors))
    resamples = num_resamples_for(split.problem, num_resamples) if result.is_scored else 0
    shown = _metrics(split, result, resamples, confidence, seed)
    tide, breakdown = tide_errors(split), break_down(split)
    interval = shown["AP"]
    known = None
    if interval.low is not None and interval.high is not None:
        known = (interval.low, interval.high)
    evidence = Evidence(
        result=result,
        ap_interval=known,
        num_images=split.problem.num_images,
        num_detections=len(split.labels),
        tide=tide,
        breakdown=breakdown,
        confusion=at_iou["0.50"].confusion,
        score=score,
        num_label_errors=summary.num,
        ap_without_label_errors=summary.AP_without,
        overlap=overlap,
    )
    return Report(
        source=source,
        num_images=split.problem.num_images,
        num_objects=int(split.is_object.sum()),
        num_crowd=int((~split.is_object).sum()),
        num_detections=len(split.labels),
        max_detections=result.max_detections,
        num_beyond_cap=len(split.labels) - len(within_cap(split.problem, result.max_detections)),
        score_range=_range(split.problem.scores),
        metrics=shown,
        confidence=confidence,
        num_resamples=resamples,
        verdict=verdict(evidence),
        categories=result.per_category,
        suggested_score=suggested_score,
        thresholds=thresholds,
        operating_points=operating_points(counts[0]),
        at_iou=at_iou,
        tide=tide,
        calibration=calibration(split, split.matchings[0]),
        breakdown=breakdown,
        recall=recall_report(split),
        gallery=make_gallery(
            split,
            truth,
            file_names or {},
            errors=errors,
            claims=claims,
            confusions=[at.confusion for at in at_iou.values()],
            score=score,
        ),
        label_errors=summary,
        overlap=overlap,
        speed=speed,
    )


def _range(values: FloatArray) -> tuple[float, float] | None:
    return (float(values.min()), float(values.max())) if len(values) else None


def _metrics(
    split: ScoredSplit, result: DetectionMetrics, num_resamples: int, confidence: float, seed: int
) -> dict[str, ReportMetric]:
    values = result.numbers()
    intervals: dict[str, Interval | None] = dict.fromkeys(METRIC_NAMES)
    if result.is_scored:
        drawn = draw_multiplicities(split.problem.num_images, num_resamples, seed=seed)
        samples = resampled_metrics(split.problem, split.pairs, drawn)
        intervals = metric_intervals(values, samples, confidence=confidence)
    return {
        name: ReportMetric(value if value >= 0 else None, *(intervals[name] or (None, None)))
        for name, value in values.items()
    }
