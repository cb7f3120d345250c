"""The result of a tuning as tables, and in files: JSON, CSV and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retina.instruments.number_formatting import shown
from retina.instruments.tuning.comparison import FEWEST_IMAGES, Row, Stage, signed
from retina.instruments.tuning.intervals import Interval
from retina.instruments.tuning.search import TuningResult
from retina.storage import write_text
from retina.tables import Column, Table
from retina.wording import counted

_CSV_COLUMNS = (
    *("searched", "gamma", "alpha", "AP", "AP_low", "AP_high", "AP50", "behind_best"),
    *("behind_best_low", "behind_best_high", "chosen", "failure"),
)
_SEARCHED = {"γ": "gamma", "α": "alpha"}


def stage_table(stage: Stage, confidence: float) -> Table:
    """A stage for people, one line for each cell; it fits a terminal of 80 columns."""
    return Table(
        title=f"search for {stage.symbol}: AP on the validation images, {confidence:.0%} intervals",
        columns=(
            Column("γ", "gamma", shown, justify="right"),
            Column("α", "alpha", shown, justify="right"),
            Column("AP", "AP", _decimals, justify="right"),
            Column("interval", "AP_interval", _span, justify="right"),
            Column("AP50", "AP50", _decimals, justify="right"),
            Column("behind the best", "behind_best", _decimals, justify="right"),
            Column("interval", "behind_best_interval", _span, justify="right"),
            Column("", "remark"),
        ),
        rows=tuple(_row_for_people(row, stage) for row in stage.rows),
        look="tight",
        num_keys=2,
        row_style=lambda row: "bold" if row["is_chosen"] else "",
    )


def _row_for_people(row: Row, stage: Stage) -> dict[str, Any]:
    """A row without what says nothing: the best is behind itself by 0, a failed one has no AP."""
    is_best = row.cell == stage.best and stage.has_learned
    is_chosen = row.cell == stage.chosen
    remarks = [word for word, holds in (("best", is_best), ("chosen", is_chosen)) if holds]
    if not remarks and row.is_contender and stage.has_learned:
        remarks = ["≈ best"]
    failed = bool(row.scores.failures)
    return {
        "gamma": row.cell.gamma,
        "alpha": row.cell.alpha,
        "AP": "failed" if failed else row.scores.ap,
        "AP_interval": row.interval,
        "AP50": None if failed else row.scores.ap50,
        "behind_best": None if is_best else row.behind,
        "behind_best_interval": None if is_best else row.behind_interval,
        "remark": ", ".join(remarks),
        "is_chosen": is_chosen,
    }


def _decimals(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else f"{value:.3f}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{signed(interval[0])} … {signed(interval[1])}"


def failures(stage: Stage) -> list[str]:
    """A line for each cell that has no numbers."""
    return [
        f"{row.cell.name}: {len(row.scores.failures)} failed: {row.scores.failures[0]}"
        for row in stage.rows
        if row.scores.failures
    ]


def caveat(result: TuningResult) -> str:
    """What the intervals cover and what they do not."""
    if result.num_images_with_objects < FEWEST_IMAGES:
        return (
            f"Validation images with objects: {result.num_images_with_objects}. With fewer than "
            f"{FEWEST_IMAGES} an interval means nothing, so there are none, and no difference is "
            "called distinguishable. Give a larger validation set."
        )
    covered = f"The intervals say what other {counted(result.num_images, 'image')} could have shown"
    if len(result.seeds) == 1:
        return (
            f"{covered}, not what another seed would have: a difference smaller than what two "
            "seeds differ by is no gain. Give several seeds in the grid to have both."
        )
    return (
        f"{covered}, and what other seeds would have, going by how much these {len(result.seeds)} "
        "differ (Student's t): two seeds tell hardly anything apart, three and more do better."
    )


def conclusion(result: TuningResult) -> str:
    """What to do now."""
    if not result.stages[-1].has_learned:
        return (
            "nothing was learned, so there is nothing to choose by: give more epochs "
            "(budget.epochs in the grid), and another folder with --output"
        )
    return f"train with: {' '.join(result.chosen.overrides)}"


def write_reports(result: TuningResult, folder: Path) -> None:
    """Write ``tune.json``, ``tune.csv`` and ``tune.md``, each in one step."""
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "tune.json", text + "\n")
    write_text(folder / "tune.csv", _runs_table(result).to_csv())
    write_text(folder / "tune.md", _markdown(result))


def to_json(result: TuningResult) -> dict[str, Any]:
    """Everything that was found, see docs/tuning.md."""
    return {
        "chosen": {"gamma": result.chosen.gamma, "alpha": result.chosen.alpha},
        "overrides": list(result.chosen.overrides),
        "caveat": caveat(result),
        "grid": result.grid.model_dump(mode="json"),
        "seeds": list(result.seeds),
        "num_validation_images": result.num_images,
        "has_learned": result.stages[-1].has_learned,
        "stages": [
            {
                "searched": _SEARCHED[stage.symbol],
                "best": {"gamma": stage.best.gamma, "alpha": stage.best.alpha},
                "chosen": {"gamma": stage.chosen.gamma, "alpha": stage.chosen.alpha},
                "reason": stage.reason,
                "verdicts": stage.verdicts(),
                "rows": [_json_row(row, result.seeds) for row in stage.rows],
            }
            for stage in result.stages
        ],
    }


def _json_row(row: Row, seeds: Sequence[int]) -> dict[str, Any]:
    failed = bool(row.scores.failures)
    return {
        "gamma": row.cell.gamma,
        "alpha": row.cell.alpha,
        "runs": [f"runs/{row.cell.name}/seed{seed}" for seed in seeds],
        "failures": list(row.scores.failures),
        "AP": None if failed else row.scores.ap,
        "AP_by_seed": list(row.scores.aps),
        "AP_interval": row.interval,
        "AP50": None if failed else row.scores.ap50,
        "behind_best": row.behind,
        "behind_best_interval": row.behind_interval,
        "distinguishable_from_best": None if failed else not row.is_contender,
    }


def _runs_table(result: TuningResult) -> Table:
    """The rows of all stages for programs, with all decimals."""
    rows = []
    for stage in result.stages:
        for row in stage.rows:
            record = _json_row(row, result.seeds)
            low, high = row.interval or (None, None)
            behind_low, behind_high = row.behind_interval or (None, None)
            record |= {
                "searched": _SEARCHED[stage.symbol],
                "AP_low": low,
                "AP_high": high,
                "behind_best_low": behind_low,
                "behind_best_high": behind_high,
                "chosen": int(row.cell == stage.chosen),
                "failure": "; ".join(row.scores.failures),
            }
            rows.append(record)
    return Table("", tuple(Column(key, key) for key in _CSV_COLUMNS), tuple(rows))


def _markdown(result: TuningResult) -> str:
    lines = ["# Tuning γ and α", ""]
    for stage in result.stages:
        lines += [f"## The search for {stage.symbol}", ""]
        lines += [stage_table(stage, result.grid.confidence).to_markdown()]
        lines += [f"Chosen: {stage.reason}.", ""]
        lines += [f"- {line}" for line in (*stage.verdicts(), *failures(stage))]
        lines.append("")
    lines += [caveat(result), "", f"In short: {conclusion(result)}", ""]
    return "\n".join(lines)
