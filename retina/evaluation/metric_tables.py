"""The numbers of other metrics than COCO's twelve as tables for the terminal."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from retina.evaluation.iou_metrics import IouMetrics
from retina.evaluation.lvis_metrics import LvisMetrics
from retina.evaluation.scoring import Scores
from retina.evaluation.voc_metrics import VocMetrics
from retina.tables import Column, Table

_LVIS_NAMES = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
    *("AR", "ARs", "ARm", "ARl"),
)
_COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def score_tables(scores: Scores) -> list[Table]:
    """What is shown of a block of numbers that was asked for, and of each annotation file."""
    tables: list[Table] = []
    if scores.voc is not None:
        tables += _voc_tables(scores.voc)
    if scores.lvis is not None:
        tables += _lvis_tables(scores.lvis)
    if scores.ious is not None:
        tables += _iou_tables(scores.ious)
    if scores.per_file:
        tables.append(_file_table(scores))
    return tables


def _voc_tables(metrics: VocMetrics) -> list[Table]:
    columns = (
        Column("category", "name"),
        _number("objects", "num_ground_truth"),
        _number("difficult", "num_difficult"),
        _value("AP", "AP"),
        _value("11-point AP", "AP_11_point"),
    )
    rows = tuple(asdict(category) for category in metrics.per_category)
    per_iou = (_number("IoU", "iou"), _value("mAP", "AP"), _value("11-point mAP", "AP_11_point"))
    return [
        Table(
            title=f"Pascal VOC, per category, {_at([one.iou for one in metrics.per_iou])}",
            columns=columns,
            rows=rows,
            look="tight",
        ),
        Table(
            title="Pascal VOC, mean over the categories that have objects",
            columns=per_iou,
            rows=_with_mean(
                [asdict(one) for one in metrics.per_iou],
                {"AP": metrics.AP, "AP_11_point": metrics.AP_11_point},
            ),
        ),
    ]


def _lvis_tables(metrics: LvisMetrics) -> list[Table]:
    per_category = (
        Column("category", "name"),
        Column("frequency", "frequency"),
        _number("objects", "num_ground_truth"),
        _value("AP", "AP"),
    )
    numbers = tuple({"metric": name, "value": getattr(metrics, name)} for name in _LVIS_NAMES)
    return [
        Table(
            title=f"LVIS, per category, {_at([one.iou for one in metrics.per_iou])}",
            columns=per_category,
            rows=tuple(asdict(category) for category in metrics.per_category),
            look="tight",
        ),
        Table(
            title="LVIS metrics",
            columns=(Column("metric", "metric"), _value("value", "value", digits=4)),
            rows=numbers,
        ),
    ]


def _iou_tables(metrics: IouMetrics) -> list[Table]:
    columns = (
        Column("category", "name"),
        _number("objects", "num_ground_truth"),
        _value("AP", "AP"),
    )
    return [
        Table(
            title=f"per category, {_at([one.iou for one in metrics.per_iou])}",
            columns=columns,
            rows=tuple(asdict(category) for category in metrics.per_category),
            look="tight",
        ),
        Table(
            title="COCO metrics by IoU",
            columns=(_number("IoU", "iou"), _value("AP", "AP", 4), _value("AR", "AR", 4)),
            rows=_with_mean(
                [asdict(one) for one in metrics.per_iou], {"AP": metrics.AP, "AR": metrics.AR}
            ),
        ),
    ]


def _file_table(scores: Scores) -> Table:
    """A row for each file, and one for all of them together."""
    parts = (*scores.per_file, ("all together", scores))
    names: tuple[str, ...] = _COCO_NAMES
    if scores.voc is not None:
        names = ("AP", "AP_11_point")
    elif scores.lvis is not None:
        names = ("AP", "AP50", "AP75", "APr", "APc", "APf", "AR")
    elif scores.ious is not None:
        names = ("AP", "AR")
    rows = tuple(
        {
            "file": name,
            "images": part.num_images,
            **{key: getattr(part.voc or part.lvis or part.ious or part.coco, key) for key in names},
        }
        for name, part in parts
    )
    return Table(
        title="per annotation file",
        columns=(
            Column("annotations", "file"),
            _number("images", "images"),
            *(_value(name.replace("_", " "), name) for name in names),
        ),
        rows=rows,
        look="tight",
    )


def _with_mean(rows: list[dict[str, Any]], mean: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple(rows) if len(rows) == 1 else (*rows, {"iou": "mean", **mean})


def _at(ious: list[float]) -> str:
    if len(ious) == 1:
        return f"at IoU {ious[0]:g}"
    return f"mean over {len(ious)} IoUs from {min(ious):g} to {max(ious):g}"


def _number(title: str, key: str) -> Column:
    return Column(title, key, _plain, justify="right")


def _value(title: str, key: str, digits: int = 3) -> Column:
    return Column(title, key, partial(_shown, digits=digits), justify="right")


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(value: float | None, *, digits: int) -> str:
    return "–" if value is None or value < 0 else f"{value:.{digits}f}"
