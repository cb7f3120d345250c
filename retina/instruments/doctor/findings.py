"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import yaml

from retina.configuration import Tree, merge

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""Worst first. Error: the training will hardly learn. Warning: it will be worse than it needs to
be. Note: good to know, and often meant."""

Number = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with its proof and its fix.

    Attributes:
        code: its name, for programs and for docs/doctor.md.
        level: how bad it is.
        what: one sentence with the numbers that prove it.
        why: why it matters.
        fix: what to do.
        patch: the change of the config that fixes it; None where the data must be corrected.
        numbers: the proof for programs.
    """

    code: str
    level: Level
    what: str
    why: str
    fix: str
    patch: Tree | None = None
    numbers: dict[str, Number] = field(default_factory=dict)

    def line(self) -> str:
        """The finding in one line."""
        return f"{self.level}: {self.what}. {self.fix} [{self.code}]"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check says.

    Attributes:
        summary: a few words with the most important number, for the table.
        findings: what is wrong; none where all is well.
        numbers: what was measured, for programs.
        images: names of the image files that were written into the output folder.
        name: of the check; whoever runs the checks fills it in, as the next two.
        seconds: that the check took.
        is_made: False where others found what made it pointless.
    """

    summary: str
    findings: tuple[Finding, ...] = ()
    numbers: dict[str, Number] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    name: str = ""
    seconds: float = 0.0
    is_made: bool = True

    @property
    def verdict(self) -> str:
        """The worst level of its findings, ``well``, or ``not made``."""
        if not self.is_made:
            return "not made"
        return worst_first(self.findings)[0].level if self.findings else "well"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By level, else in the order in which they were found."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def joined_patch(findings: Iterable[Finding]) -> Tree:
    """All patches in one tree, but for notes; where two change one key, the worse finding wins."""
    joined: Tree = {}
    for finding in reversed(worst_first(findings)):
        if finding.patch is not None and finding.level != "note":
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
