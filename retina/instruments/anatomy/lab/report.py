"""A replay as a table for the terminal and as ``lab.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from retina.instruments.anatomy.lab.replay import NOISE_RATE, LabCell
from retina.instruments.anatomy.lab.sample import LabSample
from retina.instruments.number_formatting import shown
from retina.storage import write_text
from retina.tables import Column, Table

CAVEAT = (
    "This is about the gradient of this detector, not about where a training with another loss "
    "would go: 'retina tune' finds that out. Trained to its end, a detector has positives near "
    "half of the gradient for the very loss it was trained with: α is then the one that keeps the "
    "balance when γ changes, and a detector from early in a training tells more."
)

_GROUPS = {"easy_negatives": "easy−", "other_negatives": "other−", "positives": "pos+"}


def lab_table(cells: Sequence[LabCell]) -> Table:
    """One line for each cell; it fits a terminal of 80 columns.

    Easy negatives, other negatives and positives in the loss and in the gradient; the share of the
    gradient that wrong labels draw; and how hard one pulls in terms of a right label.
    """
    number = partial(Column, justify="right")
    percent = partial(number, format=lambda share: f"{100 * share:.1f}")
    shares = [
        percent(f"{kind}\n{header}", f"{kind}_{group}")
        for kind in ("loss", "gradient")
        for group, header in _GROUPS.items()
    ]
    return Table(
        title=f"shares in %; wrong labels on {NOISE_RATE:.0%} of the objects",
        columns=(
            number("\nγ", "gamma", shown),
            number("\nα", "alpha", shown),
            *shares,
            percent("wrong\ndraw", "noise_share"),
            number("wrong\npull", "noise_pull", lambda pull: f"{pull:.2f}×"),
        ),
        rows=tuple(
            {
                **asdict(cell),
                **{f"loss_{group}": share for group, share in asdict(cell.loss).items()},
                **{f"gradient_{group}": share for group, share in asdict(cell.gradient).items()},
            }
            for cell in cells
        ),
        look="tight",
        section="gamma",
        num_keys=2,
    )


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
