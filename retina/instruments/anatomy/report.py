"""The anatomy as a table for the terminal and as ``anatomy.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retina.instruments.anatomy.curves import (
    HARDEST,
    CumulativeLoss,
    cumulative_loss,
    loss_curves,
)
from retina.instruments.anatomy.result import LossAnatomy, ProbabilityHistogram
from retina.storage import write_text
from retina.structures import FloatArray
from retina.tables import Column, Table

CURVE_P_T = np.linspace(0.005, 0.995, 199)
"""Where the loss curves are given."""


_GROUPS = {
    "easy_negatives": "easy neg.",
    "other_negatives": "other neg.",
    "positives": "positives",
}


def anatomy_table(anatomy: LossAnatomy) -> Table:
    """Shares of the loss and of the gradient, in percent: overall, per level and per class.

    The table fits a terminal of 80 columns.
    """
    whole = anatomy.overall()
    levels, classes = anatomy.per_level(), anatomy.per_class()
    parts = [
        ("everything", "overall", whole),
        *((name, "level", part) for name, part in zip(anatomy.level_names, levels, strict=True)),
        *((name, "class", part) for name, part in zip(anatomy.class_names, classes, strict=True)),
    ]
    number = partial(Column, format=_percent, justify="right")
    return Table(
        title="in %: part of all loss; shares of its loss, and of its gradient (L1 norm)",
        columns=(
            Column("", "name"),
            number("loss\nof all", "of_all"),
            *(
                number(f"{kind}\n{header}", f"{kind}_{group}")
                for kind in ("loss", "gradient")
                for group, header in _GROUPS.items()
            ),
        ),
        rows=tuple(
            {
                "name": name,
                "kind": kind,
                "of_all": part.loss / whole.loss if whole.loss else 0.0,
                **{f"loss_{group}": getattr(part, group).loss_share for group in _GROUPS},
                **{f"gradient_{group}": getattr(part, group).gradient_share for group in _GROUPS},
            }
            for name, kind, part in parts
        ),
        look="tight",
        section="kind",
    )


def summary(anatomy: LossAnatomy) -> list[str]:
    """What the table comes down to, in sentences."""
    whole = anatomy.overall()
    easy, positives = whole.easy_negatives, whole.positives
    count = sum(part.count for part in whole.parts)
    background, _ = cumulative_losses(anatomy)
    lines = [
        f"easy negatives (p_t > 0.9): {_percent(easy.count / max(1, count), 3)} % of all anchors × "
        f"classes, {_percent(easy.loss_share)} % of the loss, {_percent(easy.gradient_share)} % of "
        "the gradient",
        f"positives: {positives.count} of {count}, {_percent(positives.loss_share)} % of the loss",
    ]
    if background.num_samples:
        hardest = " and ".join(
            f"{background.hardest[gamma]:.0%} of {name}"
            for gamma, name in ((0.0, "its cross-entropy"), (2.0, "its loss at γ = 2"))
        )
        lines.append(f"the hardest {HARDEST:.0%} of the background make up {hardest}")
    return lines


def cumulative_losses(anatomy: LossAnatomy) -> tuple[CumulativeLoss, CumulativeLoss]:
    """Figure 4 for background and foreground, over all levels."""
    background, foreground = (
        cumulative_loss(
            anatomy.counts[:, side].sum(axis=0), anatomy.logit_sums[:, side].sum(axis=0)
        )
        for side in (0, 1)
    )
    return background, foreground


def to_json(anatomy: LossAnatomy, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known, see docs/file-formats.md.

    Args:
        anatomy: the sums.
        about: where it comes from, put first.
    """
    background, foreground = cumulative_losses(anatomy)
    levels = zip(anatomy.level_names, anatomy.per_level(), strict=True)
    classes = zip(anatomy.class_names, anatomy.per_class(), strict=True)
    return {
        **about,
        "num_images": anatomy.num_images,
        "gamma": anatomy.parameters.gamma,
        "alpha": anatomy.parameters.alpha,
        "overall": asdict(anatomy.overall()),
        "per_level": [{"name": name, **asdict(part)} for name, part in levels],
        "per_class": [{"name": name, **asdict(part)} for name, part in classes],
        "p_t_histogram": {
            "logit_edges": anatomy.histogram().logit_edges.tolist(),
            "overall": _bars(anatomy.histogram()),
            "per_level": [
                {"name": name, **_bars(anatomy.histogram(level))}
                for level, name in enumerate(anatomy.level_names)
            ],
        },
        "cumulative_loss": {
            "fractions": _rounded(background.fractions, 9),
            "background": _curves(background),
            "foreground": _curves(foreground),
        },
        "loss_curves": {
            "p_t": _rounded(CURVE_P_T, 9),
            "loss": {f"{g:g}": _rounded(v) for g, v in loss_curves(CURVE_P_T).items()},
        },
    }


def write_anatomy(path: Path, anatomy: LossAnatomy, about: Mapping[str, Any]) -> None:
    """Write ``anatomy.json`` in one step; errors as in `retina.storage.replacing`."""
    write_text(path, json.dumps(to_json(anatomy, about), indent=1, allow_nan=False) + "\n")


def _bars(histogram: ProbabilityHistogram) -> dict[str, list[int]]:
    return {
        "negatives": histogram.negatives.astype(int).tolist(),
        "positives": histogram.positives.astype(int).tolist(),
    }


def _curves(curves: CumulativeLoss) -> dict[str, Any]:
    if not curves.num_samples:
        return {"num_samples": 0, "hardest_percent": None, "values": None}
    return {
        "num_samples": curves.num_samples,
        "hardest_percent": {f"{g:g}": round(v, 6) for g, v in curves.hardest.items()},
        "values": {f"{g:g}": _rounded(v) for g, v in curves.values.items()},
    }


def _rounded(values: FloatArray, digits: int = 6) -> list[float]:
    return [round(value, digits) for value in values.tolist()]


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"
