"""An examination on the terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from retina.instruments.doctor.examination import CheckResult, Examination
from retina.instruments.doctor.findings import SEVERITIES, Finding, joined_patch, patch_yaml, worst
from retina.storage import write_text

_STYLES = {"severe": "bold red", "warning": "yellow", "note": "cyan"}


def results_table(examination: Examination) -> Table:
    """A line for each check; it fits a terminal of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("finds", no_wrap=True)
    table.add_column("measured")
    for result in examination.results:
        verdict, summary = _verdict(result)
        style = _STYLES.get(verdict, "green" if verdict == "well" else "dim")
        table.add_row(result.name, f"[{style}]{verdict}[/]", escape(summary))
    return table


def _verdict(result: CheckResult) -> tuple[str, str]:
    if result.examined is None:
        return "not made", "what was found before stands in its way"
    return worst(result.examined.findings) or "well", result.examined.summary


def finding_lines(finding: Finding) -> list[str]:
    """A finding in full, as rich markup."""
    style = _STYLES[finding.severity]
    lines = [
        f"[{style}]{finding.severity}[/] [bold]{finding.code}[/]: "
        f"{escape(_sentence(finding.what))}",
        f"  {escape(finding.why)}",
        f"  {escape(finding.remedy)}",
    ]
    if finding.patch is not None:
        lines += [f"    {escape(line)}" for line in patch_yaml(finding.patch).splitlines()]
    return lines


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def conclusion(examination: Examination) -> str:
    """How many findings of which kind there are."""
    counts = [
        (severity, sum(finding.severity == severity for finding in examination.findings))
        for severity in SEVERITIES
    ]
    told = [f"{count} {severity}" for severity, count in counts if count]
    return f"findings: {', '.join(told)}" if told else "all is well"


def write_json(examination: Examination, config_path: Path, path: Path) -> None:
    """Write ``doctor.json``: see docs/doctor.md."""
    text = json.dumps(to_json(examination, config_path), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def to_json(examination: Examination, config_path: Path) -> dict[str, Any]:
    """All results, findings and the joined patch."""
    return {
        "config": str(config_path),
        "severe": examination.is_severe,
        "checks": [_json_result(result) for result in examination.results],
        "findings": [_json_finding(finding) for finding in examination.findings],
        "patch": joined_patch(examination.findings) or None,
    }


def _json_result(result: CheckResult) -> dict[str, Any]:
    examined = result.examined
    return {
        "name": result.name,
        "verdict": _verdict(result)[0],
        "summary": _verdict(result)[1],
        "seconds": round(result.seconds, 2),
        "numbers": {} if examined is None else examined.numbers,
        "pictures": [] if examined is None else list(examined.pictures),
    }


def _json_finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "what": finding.what,
        "why": finding.why,
        "remedy": finding.remedy,
        "patch": finding.patch,
        "numbers": finding.numbers,
    }
