"""A report on the terminal and as JSON, and the config that it asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from retina.configuration import Tree, apply_override, merge
from retina.experiment import load_experiment
from retina.instruments.doctor.checks import Report
from retina.instruments.doctor.findings import (
    LEVELS,
    CheckResult,
    Finding,
    joined_patch,
    patch_yaml,
)
from retina.storage import write_text
from retina.tables import Column, Table
from retina.wording import counted

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "well": "green"}


def results_table(report: Report) -> Table:
    """A line for each check; it fits a terminal of 80 columns."""
    return Table(
        title="",
        columns=(
            Column("check", "name"),
            Column("finds", "verdict", style=lambda word: _STYLES.get(word, "dim")),
            Column("measured", "summary"),
        ),
        rows=tuple(map(_json_result, report.results)),
        look="lines",
    )


def finding_lines(finding: Finding) -> list[str]:
    """A finding in full, as rich markup."""
    what = finding.what if finding.what.endswith(".") else f"{finding.what}."
    style = _STYLES[finding.level]
    lines = [
        f"[{style}]{finding.level}[/] [bold]{finding.code}[/]: {escape(what)}",
        f"  {escape(finding.why)}",
        f"  {escape(finding.fix)}",
    ]
    if finding.patch is not None:
        lines += [f"    {escape(line)}" for line in patch_yaml(finding.patch).splitlines()]
    return lines


def conclusion(report: Report) -> str:
    """How many findings of which level there are."""
    findings = report.findings
    counts = [(level, sum(finding.level == level for finding in findings)) for level in LEVELS]
    parts = [counted(count, level) for level, count in counts if count]
    if not parts and report.stopped_by is not None:
        return "no finding so far"
    return f"findings: {', '.join(parts)}" if parts else "all is well"


def write_json(report: Report, config_path: Path, path: Path) -> None:
    """Write ``doctor.json``: see docs/doctor.md."""
    text = json.dumps(to_json(report, config_path), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def to_json(report: Report, config_path: Path) -> dict[str, Any]:
    """All results, findings and the joined patch."""
    return {
        "config": str(config_path),
        "severe": report.has_errors,
        "stopped_by": None if report.stopped_by is None else str(report.stopped_by),
        "checks": [_json_result(result) for result in report.results],
        "findings": [_json_finding(finding) for finding in report.findings],
        "patch": joined_patch(report.findings) or None,
    }


def _json_result(result: CheckResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "verdict": result.verdict,
        "summary": result.summary,
        "seconds": round(result.seconds, 2),
        "numbers": result.numbers,
        "pictures": list(result.images),
    }


def _json_finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.level,
        "what": finding.what,
        "why": finding.why,
        "remedy": finding.fix,
        "patch": finding.patch,
        "numbers": finding.numbers,
    }


def write_fixed_config(
    config_path: Path, overrides: Sequence[str], findings: Sequence[Finding]
) -> Path | None:
    """Write ``x.mended.yaml`` beside ``x.yaml`` and load it.

    The checked file and its comments stay as they are: the new one extends it. The overrides of the
    command are in it, under the patches: they may be what was wrong.

    Returns:
        The new file; None where no change of the config fixes a finding.

    Raises:
        ConfigError: the fixed config is not valid.
        UserError: the folder may not be written to.
    """
    patch = joined_patch(findings)
    if not patch:
        return None
    tree: Tree = {}
    for override in overrides:
        tree = apply_override(tree, override)
    tree = merge(tree, patch)
    codes = [f.code for f in findings if f.patch is not None and f.level != "note"]
    listed = "".join(f"#   {code}\n" for code in codes)
    head = f"# {config_path.name} as fixed by `retina doctor --apply`, for these findings:\n"
    path = config_path.with_name(f"{config_path.stem}.mended.yaml")
    write_text(path, f"{head}{listed}\n{patch_yaml({'extends': config_path.name, **tree})}\n")
    load_experiment(path, ())
    return path
