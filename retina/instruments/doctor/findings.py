"""What an examination finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import yaml

from retina.configuration import Tree, merge

Severity = Literal["severe", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("severe", "warning", "note")
"""Worst first. Severe: the training will hardly learn. Warning: it will be worse than it needs to
be. Note: good to know, and often meant."""

Number = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with its proof and its remedy.

    Attributes:
        code: its name, for programs and for docs/doctor.md.
        severity: how bad it is.
        what: one sentence with the numbers that prove it.
        why: why it matters.
        remedy: what to do.
        patch: the change of the config that mends it; None where the data must be mended.
        numbers: the proof for programs.
    """

    code: str
    severity: Severity
    what: str
    why: str
    remedy: str
    patch: Tree | None = None
    numbers: dict[str, Number] = field(default_factory=dict)

    def line(self) -> str:
        """The finding in one line."""
        return f"{self.severity}: {self.what}. {self.remedy} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Examined:
    """What a check says.

    Attributes:
        summary: a few words with the most important number, for the table.
        findings: what is wrong; none where all is well.
        numbers: what was measured, for programs.
        pictures: file names that were written into the output folder.
    """

    summary: str
    findings: tuple[Finding, ...] = ()
    numbers: dict[str, Number] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The highest severity of some findings."""
    present = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in present), None)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, else in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def joined_patch(findings: Iterable[Finding]) -> Tree:
    """All patches in one tree; where two change one key, the worse finding has its way."""
    joined: Tree = {}
    for finding in reversed(by_severity(findings)):
        if finding.patch is not None and finding.severity != "note":
            joined = merge(joined, finding.patch)
    return joined


def patch_yaml(patch: Tree) -> str:
    """A patch as YAML text."""
    text: str = yaml.safe_dump(patch, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return text.rstrip("\n")


def named(names: Iterable[str], most: int = 5) -> str:
    """Some names in a sentence, the rest counted."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return shown if len(listed) <= most else f"{shown} and {len(listed) - most} more"
