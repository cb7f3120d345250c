"""A step run again as a table of its layers, for the terminal."""

from __future__ import annotations

from typing import Any

from retina.instruments.replay.layer_check import LayerCheck
from retina.tables import Column, Table

_ROWS_BEHIND = 5
"""Layers that are shown behind the first one that breaks; all of them do."""


def layer_table(check: LayerCheck) -> Table:
    """The layers up to a little behind the first that breaks, then the losses and the gradient."""
    rows = []
    num_behind = 0
    for number, layer in enumerate(check.layers):
        if num_behind > _ROWS_BEHIND:
            rows.append(_row(f"… {len(check.layers) - number} more layers"))
            break
        broken = layer.num_not_finite
        rows.append(
            _row(
                layer.name,
                layer.kind,
                f"{layer.smallest:.4g}",
                f"{layer.largest:.4g}",
                f"{broken} of {layer.num_values}" if broken else "0",
                is_broken=bool(broken),
            )
        )
        num_behind += bool(broken)
    for number, (classification, box) in enumerate(check.losses, start=1):
        part = f" of part {number}" if len(check.losses) > 1 else ""
        for name, loss in (("classification", classification), ("box regression", box)):
            rows.append(_row(f"{name} loss{part}", "sum", "", f"{loss:.4g}", is_layer=False))
    if check.gradient is None:
        rows.append(_row("all gradients", not_finite="0", is_layer=False))
    else:
        name = f"gradient of {check.gradient}"
        rows.append(_row(name, not_finite="yes", is_broken=True, is_layer=False))
    return Table(
        title=f"the step in {check.precision}",
        columns=(
            Column("layer", "layer"),
            Column("kind", "kind"),
            Column("smallest", "smallest", justify="right"),
            Column("largest", "largest", justify="right"),
            Column("not finite", "not_finite", justify="right"),
        ),
        rows=tuple(rows),
        section="is_layer",
        row_style=lambda row: "red" if row["is_broken"] else "",
    )


def _row(
    layer: str,
    kind: str = "",
    smallest: str = "",
    largest: str = "",
    not_finite: str = "",
    *,
    is_broken: bool = False,
    is_layer: bool = True,
) -> dict[str, Any]:
    return {
        "layer": layer,
        "kind": kind,
        "smallest": smallest,
        "largest": largest,
        "not_finite": not_finite,
        "is_broken": is_broken,
        "is_layer": is_layer,
    }
