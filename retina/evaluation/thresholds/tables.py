"""A study of thresholds as tables and as ``thresholds.json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from typing import Any

from retina.evaluation.resampled_metrics import CONFIDENCE, Interval
from retina.evaluation.thresholds.choice import ChosenPoint, OperatingPoint
from retina.evaluation.thresholds.halves import HalvesCheck
from retina.evaluation.thresholds.intervals import PointIntervals
from retina.evaluation.thresholds.study import ThresholdStudy
from retina.tables import Column, Table
from retina.wording import counted

_Row = dict[str, Any]

_number = partial(Column, justify="right")


def threshold_table(study: ThresholdStudy) -> Table:
    """A line for each class, one for all of them, and one for a single threshold.

    Behind a number stands its interval. The table fits a terminal of 80 columns.
    """
    chosen, intervals = study.chosen, study.intervals
    rows = [
        _row(study, name, one.point, own, "class")
        for name, one, own in zip(study.names, chosen.classes, intervals.classes, strict=True)
    ]
    if chosen.is_per_class:
        rows.append(_row(study, "all of these", chosen.total, intervals.total, "total"))
    rows.append(_row(study, "one for all", chosen.common.point, intervals.common, "total"))
    return Table(
        title=f"{study.rule}, IoU {study.iou:g}",
        columns=(
            Column("class", "name"),
            _number("objects", "objects"),
            _number("score", "threshold", _score_with_interval),
            _number("precision", "precision", _with_interval(2)),
            _number("recall", "recall", _with_interval(2)),
            _number(chosen.rule.figure_name, "figure", _shown(3)),
            _number("need", "needed", lambda needed: "" if needed is None else str(needed)),
        ),
        rows=tuple(rows),
        look="tight",
        section="kind",
    )


def check_table(study: ThresholdStudy, check: HalvesCheck) -> Table:
    """What was promised on one half of the images, and what the other shows."""
    promised, rule = check.promised, study.chosen.rule
    pairs = [
        (name, "class", one.point, seen)
        for name, one, seen in zip(study.names, promised.classes, check.classes, strict=True)
    ]
    pairs.append(("all of these", "total", promised.total, check.total))
    rows = tuple(
        {
            "name": name,
            "kind": kind,
            "threshold": first.threshold,
            **{f"{key}_promised": value for key, value in _reached(study, first).items()},
            **{f"{key}_seen": value for key, value in _reached(study, other).items()},
        }
        for name, kind, first, other in pairs
    )
    columns = []
    for name, key, digits in (
        ("precision", "precision", 2),
        ("recall", "recall", 2),
        (rule.figure_name, "figure", 3),
    ):
        columns.append(_number(name, f"{key}_promised", _shown(digits)))
        columns.append(_number("seen", f"{key}_seen", _shown(digits)))
    return Table(
        title=f"chosen on {counted(promised.total.num_images, 'image')}, seen on the other "
        f"{check.total.num_images} (seed {check.seed})",
        columns=(Column("class", "name"), _number("score", "threshold", _score), *columns),
        rows=rows,
        look="lines",
        section="kind",
    )


def study_json(study: ThresholdStudy, *, data: str) -> dict[str, Any]:
    """All of it, with numbers in full."""
    chosen, intervals, check = study.chosen, study.intervals, study.check
    return {
        "data": data,
        "rule": study.rule,
        "iou": study.iou,
        "per_class": chosen.is_per_class,
        "num_images": chosen.total.num_images,
        "num_objects": chosen.total.num_objects,
        "confidence": CONFIDENCE,
        "num_resamples": intervals.num_resamples,
        "common": _entry(study, "all classes", chosen.common, intervals.common),
        "classes": [
            _entry(study, name, one, own)
            for name, one, own in zip(study.names, chosen.classes, intervals.classes, strict=True)
        ],
        "total": {**_point(study, chosen.total), "intervals": asdict(intervals.total)},
        "check": None if check is None else _check(study, check),
        "notes": list(study.notes()),
    }


def _check(study: ThresholdStudy, check: HalvesCheck) -> dict[str, Any]:
    promised = check.promised
    return {
        "seed": check.seed,
        "num_images": [promised.total.num_images, check.total.num_images],
        "classes": [
            {"name": name, "promised": _point(study, one.point), "seen": _point(study, seen)}
            for name, one, seen in zip(study.names, promised.classes, check.classes, strict=True)
        ],
        "total": {"promised": _point(study, promised.total), "seen": _point(study, check.total)},
    }


def _entry(
    study: ThresholdStudy, name: str, chosen: ChosenPoint, own: PointIntervals
) -> dict[str, Any]:
    return {
        "name": name,
        "source": chosen.source,
        **_point(study, chosen.point),
        "intervals": asdict(own),
        "objects_needed": study.needed(chosen.point),
    }


def _point(study: ThresholdStudy, point: OperatingPoint) -> dict[str, Any]:
    return {
        "threshold": point.threshold,
        "num_objects": point.num_objects,
        "tp": point.true,
        "fp": point.false,
        "fn": point.missed,
        "precision": point.precision,
        "recall": point.recall,
        "f1": point.f1,
        "false_alarms_per_image": point.false_alarms_per_image,
        study.chosen.rule.figure_name: study.chosen.rule.figure(point),
    }


def _row(
    study: ThresholdStudy, name: str, point: OperatingPoint, own: PointIntervals, kind: str
) -> _Row:
    return {
        "name": name,
        "kind": kind,
        "objects": point.num_objects,
        "threshold": (point.threshold, own.threshold),
        "precision": (point.precision, own.precision),
        "recall": (point.recall, own.recall),
        "figure": study.chosen.rule.figure(point),
        "needed": study.needed(point) if kind == "class" else None,
    }


def _reached(study: ThresholdStudy, point: OperatingPoint) -> dict[str, float | None]:
    return {
        "precision": point.precision,
        "recall": point.recall,
        "figure": study.chosen.rule.figure(point),
    }


def _shown(digits: int) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else f"{value:.{digits}f}"


_MOST_DECIMALS = 4
"""Of the ends of an interval of scores, which are not known better."""


def _decimals(score: float) -> int:
    """As many as the threshold has, two at least."""
    exponent = Decimal(f"{score:g}").as_tuple().exponent
    return max(2, -exponent) if isinstance(exponent, int) else 2


def _score(score: float | None) -> str:
    if score is None:
        return "–"
    digits = _decimals(score)
    return f"{score:.{digits}f}" if digits <= 6 else f"{score:g}"


def _score_with_interval(pair: tuple[float | None, Interval | None]) -> str:
    score, own = pair
    if score is None or own is None:
        return _score(score)
    digits = min(_decimals(score), _MOST_DECIMALS)
    return f"{_score(score)} {own[0]:.{digits}f}–{own[1]:.{digits}f}"


def _with_interval(digits: int) -> Callable[[tuple[float | None, Interval | None]], str]:
    def shown(pair: tuple[float | None, Interval | None]) -> str:
        value, own = pair
        if value is None:
            return "–"
        told = f"{value:.{digits}f}"
        return told if own is None else f"{told} {own[0]:.{digits}f}–{own[1]:.{digits}f}"

    return shown
