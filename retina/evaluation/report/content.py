"""The content of a report: everything that ``report.json`` holds and ``report.html`` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retina.evaluation.bootstrap import draw_multiplicities
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.metrics import METRIC_NAMES, CategoryMetrics, DetectionMetrics
from retina.evaluation.report.breakdown import Breakdown, break_down
from retina.evaluation.report.calibration import Calibration, calibration
from retina.evaluation.report.confusion import Confusion, confusion_matrix, find_claims
from retina.evaluation.report.curves import RecallCurves, recall_curves
from retina.evaluation.report.gallery import Gallery, GalleryItem, make_gallery
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
from retina.evaluation.report.scored_split import IOUS, ScoredSplit
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
from retina.storage import write_text

FORMAT_VERSION = 1
"""Of ``report.json``."""

NUM_RESAMPLES = 1000
"""Of the bootstrap, as a rule; large sets get fewer."""

_WITHOUT_SUGGESTION = 0.5
_CATEGORY_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "best_f1", "best_f1_score")


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What was scored, and on what.

    Attributes:
        dataset: the name of the data.
        detector: the name of the detector; None for a results file.
        detections: the name of the results file; None for a detector.
        annotations_sha256: of the annotation file; None where there is not one file.
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
        metrics: the twelve numbers by name.
        confidence: of their intervals.
        num_resamples: that the intervals are made from.
        verdict: three sentences.
        categories: in the order of the labels.
        suggested_score: a score threshold to start from; None where nothing is found.
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
    metrics: Mapping[str, ReportMetric]
    confidence: float
    num_resamples: int
    verdict: tuple[Sentence, ...]
    categories: tuple[CategoryMetrics, ...]
    suggested_score: float | None
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
        return {
            "format_version": FORMAT_VERSION,
            "head": self._head(),
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "confidence": self.confidence,
            "num_resamples": self.num_resamples,
            "verdict": [asdict(sentence) for sentence in self.verdict],
            "categories": [
                _category(label, category) for label, category in enumerate(self.categories)
            ],
            "suggested_score": self.suggested_score,
            "operating_points": [asdict(point) for point in self.operating_points],
            "counts": {
                iou: {key: getattr(at.counts, key).tolist() for key in ("tp", "fp", "fn")}
                for iou, at in self.at_iou.items()
            },
            "confusion": {iou: _confusion(at.confusion) for iou, at in self.at_iou.items()},
            "curves": {
                iou: _curves(at.curves, len(self.categories)) for iou, at in self.at_iou.items()
            },
            "tide": self.tide and asdict(self.tide),
            "calibration": self.calibration and asdict(self.calibration),
            "breakdown": asdict(self.breakdown),
            "recall": asdict(self.recall),
            "images": [asdict(image) for image in self.gallery.images],
            "gallery": _gallery(self.gallery),
            "label_errors": asdict(self.label_errors),
            "overlap": self.overlap and asdict(self.overlap),
            "speed": self.speed and asdict(self.speed),
        }

    def _head(self) -> dict[str, Any]:
        return {
            "detector": self.source.detector,
            "detections": self.source.detections,
            "dataset": self.source.dataset,
            "annotations_sha256": self.source.annotations_sha256,
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_crowd": self.num_crowd,
            "num_detections": self.num_detections,
            "date": self.source.date.isoformat(timespec="seconds"),
            "command": self.source.command,
            "version": version("retina"),
        }


def build_report(
    metrics: CocoMetrics,
    result: DetectionMetrics,
    *,
    source: ReportSource,
    file_names: Mapping[int, str] | None = None,
    suggested_score: float | None = None,
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
    score = _WITHOUT_SUGGESTION if suggested_score is None else suggested_score
    errors = find_label_errors(split, split.matchings[0])
    summary = LabelErrorSummary(len(errors), ap_without(split, errors))
    resamples = num_resamples_for(split.problem, num_resamples)
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
        metrics=shown,
        confidence=confidence,
        num_resamples=resamples,
        verdict=verdict(evidence),
        categories=result.per_category,
        suggested_score=suggested_score,
        operating_points=operating_points(counts[0]),
        at_iou=at_iou,
        tide=tide,
        calibration=calibration(split, split.matchings[0]),
        breakdown=breakdown,
        recall=recall_report(split),
        gallery=make_gallery(
            split, truth, file_names or {}, errors=errors, claims=claims[0], score=score
        ),
        label_errors=summary,
        overlap=overlap,
        speed=speed,
    )


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


def write_report_json(path: Path, report: Report) -> None:
    """Write ``report.json`` in one step.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    text = json.dumps(report.to_json(), allow_nan=False, separators=(",", ":"))
    write_text(path, text + "\n")


def _category(label: int, category: CategoryMetrics) -> dict[str, Any]:
    return {
        "label": label,
        "name": category.name,
        "num_objects": category.num_ground_truth,
        **{key: getattr(category, key) for key in _CATEGORY_KEYS},
    }


def _confusion(confusion: Confusion) -> dict[str, Any]:
    cells = [
        {"truth": cell.truth, "detected": cell.detected, "counts": list(cell.counts)}
        for cell in confusion.cells
    ]
    return {"cells": cells, "num_left_out": confusion.num_left_out}


def _curves(curves: RecallCurves, num_classes: int) -> dict[str, Any]:
    categories: Any = list(curves.categories)
    if len(curves.labels) < num_classes:
        categories = {"labels": list(curves.labels), "precision": categories}
    return {
        "recall_levels": list(curves.recall_levels),
        "precision_at_recall": {"mean": curves.mean, "categories": categories},
    }


def _gallery(gallery: Gallery) -> dict[str, Any]:
    return {
        "worst_images": [
            {**_item(one), "f1": one.example.f1, "errors": one.example.errors}
            for one in gallery.worst_images
        ],
        "false_alarms": [_item(one) for one in gallery.false_alarms],
        "missed": [_item(one) for one in gallery.missed],
        "badly_placed": [{**_item(one), "iou": one.example.iou} for one in gallery.badly_placed],
        "label_errors": [
            {**_item(one.item), "kind": one.error.kind, "score": one.error.score}
            for one in gallery.label_errors
        ],
        "confusions": [
            {
                "truth": cell.truth,
                "detected": cell.detected,
                "items": [_item(one) for one in cell.items],
            }
            for cell in gallery.confusions
        ],
    }


def _item(item: GalleryItem) -> dict[str, Any]:
    return {
        "image": item.image,
        "detection": item.detection,
        "truth": item.truth,
        "note": item.example.note,
    }
