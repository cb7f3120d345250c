"""The form of ``report.json``: what programs and the page read of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retina.evaluation.metrics import CategoryMetrics
from retina.evaluation.report.confusion import Confusion
from retina.evaluation.report.curves import RecallCurves
from retina.evaluation.report.gallery import Gallery, GalleryItem
from retina.storage import write_text
from retina.wording import program_version

if TYPE_CHECKING:
    from retina.evaluation.report.content import Report

FORMAT_VERSION = 1
"""Of ``report.json``."""

_CATEGORY_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "best_f1", "best_f1_score")


def report_json(report: Report) -> dict[str, Any]:
    """The whole of it: plain numbers, None where there is nothing to say."""
    num_classes = len(report.categories)
    thresholds = report.thresholds or (None,) * num_classes
    at_iou = report.at_iou.items()
    return {
        "format_version": FORMAT_VERSION,
        "head": _head(report),
        "metrics": {name: asdict(metric) for name, metric in report.metrics.items()},
        "confidence": report.confidence,
        "num_resamples": report.num_resamples,
        "verdict": [asdict(sentence) for sentence in report.verdict],
        "categories": [
            _category(label, category, threshold)
            for label, (category, threshold) in enumerate(
                zip(report.categories, thresholds, strict=True)
            )
        ],
        "suggested_score": report.suggested_score,
        "operating_points": [asdict(point) for point in report.operating_points],
        "counts": {
            iou: {key: getattr(at.counts, key).tolist() for key in ("tp", "fp", "fn")}
            for iou, at in at_iou
        },
        "confusion": {iou: _confusion(at.confusion) for iou, at in at_iou},
        "curves": {iou: _curves(at.curves, num_classes) for iou, at in at_iou},
        "tide": report.tide and asdict(report.tide),
        "calibration": report.calibration and asdict(report.calibration),
        "breakdown": asdict(report.breakdown),
        "recall": asdict(report.recall),
        "images": [asdict(image) for image in report.gallery.images],
        "gallery": _gallery(report.gallery),
        "label_errors": asdict(report.label_errors),
        "overlap": report.overlap and asdict(report.overlap),
        "speed": report.speed and asdict(report.speed),
    }


def _head(report: Report) -> dict[str, Any]:
    source = report.source
    return {
        "detector": source.detector,
        "detections": source.detections,
        "dataset": source.dataset,
        "annotations_sha256": source.annotations_sha256,
        "num_images": report.num_images,
        "num_objects": report.num_objects,
        "num_crowd": report.num_crowd,
        "num_detections": report.num_detections,
        "max_detections": report.max_detections,
        "num_beyond_cap": report.num_beyond_cap,
        "score_range": report.score_range and list(report.score_range),
        "date": source.date.isoformat(timespec="seconds"),
        "command": source.command,
        "version": program_version(),
    }


def write_report_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``report.json`` in one step: what `Report.to_json` gives.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    write_text(path, text + "\n")


def _category(label: int, category: CategoryMetrics, threshold: float | None) -> dict[str, Any]:
    return {
        "label": label,
        "name": category.name,
        "num_objects": category.num_ground_truth,
        **{key: getattr(category, key) for key in _CATEGORY_KEYS},
        "threshold": threshold,
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
                "iou": f"{cell.iou:.2f}",
                "truth": cell.truth,
                "detected": cell.detected,
                "items": [{**_item(one.item), "stops": list(one.stops)} for one in cell.items],
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
