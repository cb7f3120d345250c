"""The content of a report made from invented detections: large or small, and all of it consistent.

Every count follows from a list of objects and a list of detections, as in a report of a real set.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from retina.evaluation.report.page import Picture

STOPS = np.arange(101) / 100
BACKGROUND = -1
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Outcomes:
    """What became of ``(G,)`` objects and ``(N,)`` detections at one IoU.

    Attributes:
        labels: the class of each object.
        detected: the class of each detection.
        scores: the score of each detection.
        found: the object that each detection has found or, in another class, is taken for; -1 for
            none.
    """

    labels: Any
    detected: Any
    scores: Any
    found: Any


def invented(
    num_classes: int, num_objects: int, seed: int, *, detects: bool
) -> dict[str, Outcomes]:
    """Objects of few frequent and many rare classes, and detections of most of them, or none."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, num_classes + 1)
    labels = rng.choice(num_classes, num_objects, p=weights / weights.sum())
    objects = np.flatnonzero(rng.random(num_objects) < (0.85 if detects else 0))
    wrong = (rng.random(len(objects)) < 0.15) & (num_classes > 1)
    neighbours = (labels[objects] + rng.choice([1, 2, 3], len(objects))) % num_classes
    num_false = num_objects // 2 if detects else 0
    detected = np.concatenate(
        [np.where(wrong, neighbours, labels[objects]), rng.integers(0, num_classes, num_false)]
    )
    scores = np.concatenate(
        [rng.beta(4, 2, len(objects)) * np.where(wrong, 0.8, 1), rng.beta(1.2, 4, num_false)]
    )
    found = np.concatenate([objects, np.full(num_false, BACKGROUND)])
    is_loose = rng.random(len(found)) < 0.25  # at the higher IoU these find nothing
    return {
        "0.50": Outcomes(labels, detected, scores, found),
        "0.75": Outcomes(labels, detected, scores, np.where(is_loose, BACKGROUND, found)),
    }


def counts_of(outcomes: Outcomes, num_classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """TP, FP and FN by class and stop, and the cells of the confusion matrix."""
    side = num_classes + 1  # the last row and column are the background: index -1
    truth = np.where(outcomes.found >= 0, outcomes.labels[outcomes.found], BACKGROUND)
    stops = []
    for score in STOPS:
        counts = outcomes.scores >= score
        is_found = np.zeros(len(outcomes.labels), dtype=bool)
        is_found[outcomes.found[counts & (outcomes.found >= 0)]] = True
        rows = np.concatenate([truth[counts], outcomes.labels[~is_found]]) % side
        columns = np.concatenate([outcomes.detected[counts], np.full((~is_found).sum(), -1)]) % side
        stops.append(np.unique(rows * side + columns, return_counts=True))
    kept = np.unique(np.concatenate([places for places, _ in stops]))
    table = np.zeros((len(kept), len(STOPS)), dtype=np.int64)
    for stop, (places, numbers) in enumerate(stops):
        table[np.searchsorted(kept, places), stop] = numbers
    rows, columns = kept // side, kept % side
    tp, objects, detections = (np.zeros((side, len(STOPS)), dtype=np.int64) for _ in range(3))
    np.add.at(tp, rows[rows == columns], table[rows == columns])
    np.add.at(objects, rows, table)
    np.add.at(detections, columns, table)
    labels = [*range(num_classes), BACKGROUND]
    cells = [
        {"truth": labels[row], "detected": labels[column], "counts": counts}
        for row, column, counts in zip(rows, columns, table.tolist(), strict=True)
    ]
    by_kind = {"tp": tp, "fp": detections - tp, "fn": objects - tp}
    return {kind: counts[:-1].tolist() for kind, counts in by_kind.items()}, cells


def costliest(cells: list[dict[str, Any]], num_kept: int) -> tuple[list[dict[str, Any]], int]:
    """The confusions of two classes that are most frequent, and how many are left out."""
    confusions = [
        cell
        for cell in cells
        if cell["truth"] != cell["detected"] and BACKGROUND not in (cell["truth"], cell["detected"])
    ]
    confusions.sort(key=lambda cell: -sum(cell["counts"]))
    return confusions[:num_kept], max(0, len(confusions) - num_kept)


def curve_of(outcomes: Outcomes, label: int) -> list[float] | None:
    """Precision at 101 recalls, the highest at that recall or above."""
    num_objects = int((outcomes.labels == label).sum())
    if num_objects == 0:
        return None
    mine = np.flatnonzero(outcomes.detected == label)
    mine = mine[np.argsort(-outcomes.scores[mine])]
    is_true = (outcomes.found[mine] >= 0) & (outcomes.labels[outcomes.found[mine]] == label)
    tp = np.cumsum(is_true)
    precision = np.append(tp / np.arange(1, len(mine) + 1), 0.0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(tp / num_objects, STOPS, side="left")
    return precision[np.minimum(at, len(mine))].round(6).tolist()


def curves_of(outcomes: Outcomes, num_classes: int) -> dict[str, Any]:
    curves = [curve_of(outcomes, label) for label in range(num_classes)]
    kept: Any = curves
    if num_classes > 100:
        most = np.argsort(-np.bincount(outcomes.labels, minlength=num_classes))[:50].tolist()
        kept = {"labels": most, "precision": [curves[label] for label in most]}
    with_objects = [curve for curve in curves if curve is not None]
    mean = np.mean(with_objects, axis=0).tolist() if with_objects else None
    return {
        "recall_levels": STOPS.tolist(),
        "precision_at_recall": {"mean": mean, "categories": kept},
    }


def content_of(
    names: Sequence[str],
    *,
    num_objects: int = 300,
    num_images: int = 12,
    seed: int = 0,
    detects: bool = True,
) -> dict[str, Any]:
    """The content of a report on classes of these names."""
    outcomes = invented(len(names), num_objects, seed, detects=detects)
    counts, confusion = {}, {}
    for iou, at_iou in outcomes.items():
        counts[iou], cells = counts_of(at_iou, len(names))
        kept, num_left_out = costliest(cells, 50) if len(names) > 100 else (cells, 0)
        confusion[iou] = {"cells": kept, "num_left_out": num_left_out}
    totals = {kind: np.sum(rows, axis=0).tolist() for kind, rows in counts["0.50"].items()}
    images = [_image(number, len(names), seed, detects=detects) for number in range(num_images)]
    has_numbers = num_objects > 0 and detects
    curves = {iou: curves_of(at_iou, len(names)) for iou, at_iou in outcomes.items()}
    return {
        "format_version": 1,
        "head": _head(outcomes["0.50"], num_images),
        "metrics": _metrics(has_numbers=has_numbers),
        "confidence": 0.95,
        "num_resamples": 1000 if has_numbers else 0,
        "verdict": _verdict(names),
        "categories": _categories(names, curves, outcomes["0.50"]),
        "suggested_score": 0.437 if has_numbers else None,
        "operating_points": [
            {"score": stop / 100, **{kind: totals[kind][stop] for kind in ("tp", "fp", "fn")}}
            for stop in range(101)
        ],
        "counts": counts,
        "confusion": confusion,
        "curves": curves,
        "tide": _tide() if has_numbers else None,
        "calibration": _calibration() if has_numbers else None,
        "breakdown": _breakdown(num_objects),
        "recall": _recall(num_images, num_objects),
        "images": images,
        "gallery": _gallery(images, confusion["0.50"]["cells"], detects=detects),
        "label_errors": {"num": 3, "AP_without": 0.5412} if has_numbers else None,
        "overlap": {
            "num_pairs": 2,
            "num_images": 2,
            "num_train_compared": 40,
            "num_validation_compared": num_images,
            "pairs": [
                {"train": f"train/scene_{n}.jpg", "validation": f"{n}.jpg", "distance": n}
                for n in range(2)
            ],
        },
        "speed": {
            "device": "Intel Xeon, 2 cores",
            "decode_ms": 4.21,
            "network_ms": 88.4,
            "postprocess_ms": 2.05,
            "num_images": 50,
        },
    }


def pictures_of(content: dict[str, Any]) -> dict[str, Picture]:
    """A picture for every image, with a blob in each object's box."""
    pictures = {}
    for number, image in enumerate(content["images"]):
        rng = np.random.default_rng(number)
        drawing = Image.new("RGB", (image["width"], image["height"]), (70, 90, 100))
        pen = ImageDraw.Draw(drawing)
        for one in image["truth"]:
            pen.ellipse(one["box"], fill=tuple(rng.integers(60, 230, 3).tolist()))
        drawing.thumbnail((640, 640))
        stream = io.BytesIO()
        drawing.save(stream, "JPEG", quality=85)
        pictures[image["picture"]] = Picture(stream.getvalue(), *drawing.size)
    return pictures


def _head(outcomes: Outcomes, num_images: int) -> dict[str, Any]:
    return {
        "detector": "runs/cells/checkpoints/best.safetensors",
        "detections": None,
        "dataset": "cells, validation",
        "annotations_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "num_images": num_images,
        "num_objects": len(outcomes.labels),
        "num_crowd": 1,
        "num_detections": len(outcomes.scores),
        "max_detections": 100,
        "num_beyond_cap": 0,
        "score_range": [0.01, 0.99],
        "date": "2026-02-03T14:05:06+01:00",
        "command": "retina evaluate best.safetensors --data cells --split validation",
        "version": "0.1.0",
    }


def _metrics(*, has_numbers: bool) -> dict[str, Any]:
    values: list[float | None] = [0.5137, 0.8125, 0.5625, None, 0.4812, 0.6011]
    values += [0.3412, 0.5523, 0.6018, None, 0.5444, 0.6612]
    if not has_numbers:
        values = [None] * 12
    return {
        name: {
            "value": value,
            "low": None if value is None else value - 0.06,
            "high": None if value is None else value + 0.05,
        }
        for name, value in zip(METRICS, values, strict=True)
    }


def _verdict(names: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"text": "It finds large objects well: APl is 0.601.", "refers_to": "size"},
        {
            "text": f"Boxes of {names[0]} that fit too little cost most: 0.102 AP50.",
            "refers_to": "tide",
        },
        {
            "text": "Look at the 3 probable label errors first: AP without them is 0.541.",
            "refers_to": "label_errors",
        },
    ]


def _categories(
    names: Sequence[str], curves: dict[str, Any], outcomes: Outcomes
) -> list[dict[str, Any]]:
    numbers = np.bincount(outcomes.labels, minlength=len(names)).tolist()
    rows = []
    for label, name in enumerate(names):
        values = {
            iou: curve_of(outcomes, label) if numbers[label] else None for iou in ("0.50", "0.75")
        }
        ap50 = None if values["0.50"] is None else float(np.mean(values["0.50"]))
        rows.append(
            {
                "label": label,
                "name": name,
                "num_objects": numbers[label],
                "AP": None if ap50 is None else ap50 * 0.6,
                "AP50": ap50,
                "AP75": None if ap50 is None else ap50 * 0.7,
                "APs": None,
                "APm": None,
                "APl": None,
                "AR100": None if ap50 is None else ap50 * 0.8,
                "best_f1": None if ap50 is None else ap50 * 0.9,
                "best_f1_score": None if ap50 is None else 0.4375,
                "threshold": None,
            }
        )
    return rows


def _tide() -> dict[str, Any]:
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    costs = (0.041, 0.102, 0.006, 0.0, 0.033, 0.087)
    return {
        "ap50": 0.8125,
        "errors": [
            {"kind": kind, "count": number * 7 + 3, "ap_cost": cost}
            for number, (kind, cost) in enumerate(zip(kinds, costs, strict=True))
        ],
    }


def _calibration() -> dict[str, Any]:
    def bins(shift: float) -> list[dict[str, Any]]:
        return [
            {
                "low": number / 10,
                "high": (number + 1) / 10,
                "count": 0 if number == 9 else 400 // (number + 1),
                "confidence": None if number == 9 else number / 10 + 0.05,
                "precision": None if number == 9 else min(1.0, number / 10 + 0.05 + shift),
            }
            for number in range(10)
        ]

    return {
        "bins": bins(0.15),
        "ece": 0.1312,
        "temperature": 0.714,
        "ece_after": 0.0288,
        "bins_after": bins(0.02),
    }


def _breakdown(num_objects: int) -> dict[str, Any]:
    def rows(*names: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "num_objects": num_objects // (n + 2), "AP": 0.6 - 0.11 * n, "AR": 0.7}
            for n, name in enumerate(names)
        ]

    return {
        "size": rows("small, up to 32²", "medium, up to 96²", "large, above 96²"),
        "aspect_ratio": rows("tall, below 1:2", "square", "wide, above 2:1"),
        "crowding": rows("apart", "touching", "crowded"),
    }


def _recall(num_images: int, num_objects: int) -> dict[str, Any]:
    limits = ((1, 1), (2, 4), (5, 9), (10, None))
    return {
        "by_objects_per_image": [
            {
                "low": low,
                "high": high,
                "num_images": num_images // 4,
                "num_objects": num_objects // 4,
                "recall": 0.8 - 0.1 * number,
            }
            for number, (low, high) in enumerate(limits)
        ],
        "by_cap": [
            {"max_detections": cap, "recall": recall}
            for cap, recall in ((1, 0.34), (10, 0.55), (100, 0.6018))
        ],
    }


def _image(number: int, num_classes: int, seed: int, *, detects: bool) -> dict[str, Any]:
    rng = np.random.default_rng([seed, number])
    width, height = ((640, 480), (480, 640), (1280, 720))[number % 3]

    def box() -> list[float]:
        x, y = rng.uniform(0, [width * 0.8, height * 0.8])
        w, h = rng.uniform(0.06, 0.2, 2) * (width, height)
        return [round(value, 2) for value in (x, y, x + w, y + h)]

    truth = [
        {"box": box(), "label": int(rng.integers(num_classes)), "is_crowd": False} for _ in range(6)
    ]
    detections = [
        {
            "box": [round(value + rng.normal(0, 4), 2) for value in one["box"]],
            "label": one["label"],
            "score": round(float(rng.uniform(0.05, 1)), 4),
        }
        for one in truth
    ]
    detections += [{"box": box(), "label": 0, "score": 0.97 - 0.05 * number}]
    return {
        "id": number,
        "file_name": f"scene_{number:04d}.jpg",
        "width": width,
        "height": height,
        "picture": f"p{number}",
        "truth": [{**one, "annotation_id": at} for at, one in enumerate(truth)],
        "detections": detections if detects else [],
    }


def _gallery(
    images: list[dict[str, Any]], cells: list[dict[str, Any]], *, detects: bool
) -> dict[str, Any]:
    places = range(len(images))
    detected = places if detects else ()
    confusions, _ = costliest(cells, 3)
    return {
        "worst_images": [
            {"image": at, "errors": 20 - at, "note": f"{20 - at} errors"} for at in places
        ],
        "false_alarms": [
            {"image": at, "detection": 6, "note": f"score {0.97 - 0.05 * at:.2f}"}
            for at in detected
        ],
        "missed": [{"image": at, "truth": at % 6, "note": "120 × 80 pixels"} for at in places],
        "badly_placed": [
            {"image": at, "detection": at % 6, "truth": at % 6, "iou": 0.52, "note": "IoU 0.52"}
            for at in detected
        ],
        "label_errors": [
            {
                "image": at,
                "kind": "missing",
                "detection": 6,
                "truth": None,
                "score": 0.9,
                "note": "probably an object without its annotation",
            }
            for at in detected[:3]
        ],
        "confusions": [
            {
                "iou": "0.50",
                "truth": cell["truth"],
                "detected": cell["detected"],
                "items": [
                    {"image": at, "detection": 0, "truth": 0, "stops": [0, 99 if at else 10]}
                    for at in places[:4]
                ],
            }
            for cell in confusions
        ],
    }
