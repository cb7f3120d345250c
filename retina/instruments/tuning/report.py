"""The result of a tuning as a table for the terminal, and as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from retina.instruments.number_formatting import shown
from retina.instruments.tuning.comparison import FEWEST_IMAGES, Row, Stage, signed
from retina.instruments.tuning.intervals import Interval
from retina.instruments.tuning.search import TuningResult
from retina.storage import write_text

_COLUMNS = (
    *("searched", "gamma", "alpha", "AP", "AP_low", "AP_high", "AP50", "behind_best"),
    *("behind_best_low", "behind_best_high", "chosen", "failure"),
)
_HEADERS = ("γ", "α", "AP", "interval", "AP50", "behind the best", "interval", "")


def stage_table(stage: Stage, confidence: float) -> Table:
    """A stage, one line for each cell; it fits a terminal of 80 columns."""
    table = Table(
        title=f"search for {stage.symbol}: AP on the validation images, {confidence:.0%} intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="left" if number == len(_HEADERS) - 1 else "right")
    for row in stage.rows:
        style = "bold" if row.cell == stage.chosen else None
        table.add_row(*_cells(row, stage), style=style)
    return table


def _cells(row: Row, stage: Stage) -> tuple[str, ...]:
    gamma, alpha = shown(row.cell.gamma), shown(row.cell.alpha)
    if row.scores.failures:
        return gamma, alpha, "failed", "", "", "", "", ""
    assert row.behind is not None
    is_best = row.cell == stage.best and stage.has_learned
    marks = [
        word for word, holds in (("best", is_best), ("chosen", row.cell == stage.chosen)) if holds
    ]
    return (
        gamma,
        alpha,
        f"{row.scores.ap:.3f}",
        _span(row.interval),
        f"{row.scores.ap50:.3f}",
        "" if is_best else f"{row.behind:.3f}",
        "" if is_best else _span(row.behind_interval),
        ", ".join(marks) or ("≈ best" if row.is_contender and stage.has_learned else ""),
    )


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
    covered = f"The intervals say what other {result.num_images} images could have shown"
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
    write_text(folder / "tune.csv", _csv(result))
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
                "searched": {"γ": "gamma", "α": "alpha"}[stage.symbol],
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


def _csv(result: TuningResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for stage in result.stages:
        for row in stage.rows:
            failed = bool(row.scores.failures)
            writer.writerow(
                [
                    {"γ": "gamma", "α": "alpha"}[stage.symbol],
                    row.cell.gamma,
                    row.cell.alpha,
                    _number(None if failed else row.scores.ap),
                    *(_number(value) for value in row.interval or (None, None)),
                    _number(None if failed else row.scores.ap50),
                    _number(row.behind),
                    *(_number(value) for value in row.behind_interval or (None, None)),
                    int(row.cell == stage.chosen),
                    "; ".join(row.scores.failures),
                ]
            )
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _markdown(result: TuningResult) -> str:
    lines = ["# Tuning γ and α", ""]
    for stage in result.stages:
        lines += [f"## The search for {stage.symbol}", ""]
        lines += [f"| {' | '.join(_HEADERS)} |", f"|{'---:|' * (len(_HEADERS) - 1)}---|"]
        lines += [f"| {' | '.join(_cells(row, stage))} |" for row in stage.rows]
        lines += ["", f"Chosen: {stage.reason}.", ""]
        lines += [f"- {line}" for line in (*stage.verdicts(), *failures(stage))]
        lines.append("")
    lines += [caveat(result), "", f"In short: {conclusion(result)}", ""]
    return "\n".join(lines)
