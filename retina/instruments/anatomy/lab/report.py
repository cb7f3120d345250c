"""A replay as a table for the terminal and as ``lab.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from retina.instruments.anatomy.lab.replay import NOISE_RATE, LabCell
from retina.instruments.anatomy.lab.sample import LabSample
from retina.instruments.number_formatting import shown
from retina.storage import write_text

CAVEAT = (
    "This is about the gradient at this checkpoint, not about where a training with another loss "
    "would go: 'retina tune' finds that out. Trained to its end, a detector has positives near "
    "half of the gradient for the very loss it was trained with: α is then the one that keeps the "
    "balance when γ changes, and an early checkpoint tells more."
)

_GROUPS = ("easy−", "other−", "pos+")
_HEADERS = (
    *("\nγ", "\nα"),
    *(f"{'loss' if number == 1 else ''}\n{group}" for number, group in enumerate(_GROUPS)),
    *(f"{'gradient' if number == 1 else ''}\n{group}" for number, group in enumerate(_GROUPS)),
    *("wrong\ndraw", "wrong\npull"),
)


def lab_table(cells: Sequence[LabCell]) -> Table:
    """One line for each cell; it fits a terminal of 80 columns.

    Easy negatives, other negatives and positives in the loss and in the gradient; the share of the
    gradient that wrong labels draw; and how hard one pulls in terms of a right label.
    """
    table = Table(
        title=f"shares in %; wrong labels on {NOISE_RATE:.0%} of the objects",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for header in _HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    for number, cell in enumerate(cells):
        following = cells[number + 1 : number + 2]
        table.add_row(
            shown(cell.gamma),
            shown(cell.alpha),
            *(f"{100 * share:.1f}" for share in asdict(cell.loss).values()),
            *(f"{100 * share:.1f}" for share in asdict(cell.gradient).values()),
            f"{100 * cell.noise_share:.1f}",
            f"{cell.noise_pull:.2f}×",
            end_section=any(other.gamma != cell.gamma for other in following),
        )
    return table


def write_lab(
    path: Path, sample: LabSample, cells: Sequence[LabCell], about: Mapping[str, Any]
) -> None:
    """Write ``lab.json`` in one step; ``about``, where it comes from, is put first."""
    tree = {
        **about,
        "num_images": sample.num_images,
        "num_objects": sample.num_objects,
        "num_anchor_classes": sample.num_elements,
        "num_positives": len(sample.own_class),
        "noise_rate": NOISE_RATE,
        "cells": [asdict(cell) for cell in cells],
    }
    text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
