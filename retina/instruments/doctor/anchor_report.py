"""The coverage by several sets of anchors: tables, files and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from retina.instruments.doctor.coverage.fitting import AnchorProposal
from retina.instruments.doctor.coverage.measuring import Share
from retina.instruments.doctor.findings import patch_yaml
from retina.instruments.doctor.proposing import Proposals
from retina.instruments.figures import new_figure, write_png
from retina.storage import write_text
from retina.structures import Categories

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES = 20
_COLORS = ("#2a9d8f", "#e9c46a", "#c8553d")
_OUTCOMES = ("matched", "only a low-quality match", "never")


def coverage_table(proposals: Proposals, categories: Categories) -> Table:
    """Matched, rescued and never, in percent, by size and class; it fits 80 columns."""
    table = Table(
        title="objects matched / only by a low-quality match / never, in %",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("size at the input", overflow="fold")
    table.add_column("objects", justify="right")
    for proposal in proposals.sets:
        table.add_column(_title(proposal, proposals), justify="right", no_wrap=True)
    for name, shares in _rows(proposals, categories):
        cells = [_cell(share) for share in shares]
        table.add_row(escape(name), str(shares[0].count), *cells)
    return table


def _title(proposal: AnchorProposal, proposals: Proposals) -> str:
    chosen = proposal is proposals.best and proposal is not proposals.current
    return f"[bold]{proposal.name}[/]" if chosen else proposal.name


def _rows(proposals: Proposals, categories: Categories) -> Iterator[tuple[str, list[Share]]]:
    coverages = [proposal.coverage for proposal in proposals.sets]
    yield "all", [coverage.share() for coverage in coverages]
    for parts in zip(*(coverage.by_side() for coverage in coverages), strict=True):
        if parts[0][1].count:
            yield f"{parts[0][0]} pixels", [share for _, share in parts]
    count = len(categories)
    by_class = [coverage.by_class(count) for coverage in coverages]
    worst = sorted(range(count), key=lambda label: by_class[0][label].matched)
    for label in [label for label in worst if by_class[0][label].count][:_MOST_CLASSES]:
        yield categories.names[label], [shares[label] for shares in by_class]


def _cell(share: Share) -> str:
    parts = (share.matched, share.rescued, share.never)
    return " / ".join(f"{100 * part:.0f}" for part in parts)


def settings_table(proposals: Proposals) -> Table:
    """The anchors of every set."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for header in ("anchors", "sizes", "scales", "ratios", "an image"):
        table.add_column(header, justify="right" if header == "an image" else "left")
    for proposal in proposals.sets:
        config = proposal.config
        scales = config.scales if config.scales_per_level is None else ("per level",)
        ratios = config.ratios if config.ratios_per_level is None else ("per level",)
        table.add_row(
            _title(proposal, proposals),
            *(", ".join(map(_short, values)) for values in (config.sizes, scales, ratios)),
            f"{proposal.coverage.anchors_per_image:,.0f}",
        )
    return table


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def advice(proposals: Proposals) -> list[str]:
    """What to do, with the patch as YAML."""
    before, after = proposals.current.coverage.share(), proposals.best.coverage.share()
    if proposals.best is proposals.current:
        return [
            f"keep the anchors as they are: {before.matched:.1%} of {before.count} objects are "
            "matched, and no other set matches clearly more"
        ]
    lines = [
        f"take '{proposals.best.name}': {after.matched:.1%} of {after.count} objects are matched "
        f"instead of {before.matched:.1%}, {after.never:.1%} never instead of {before.never:.1%}",
        *patch_yaml(proposals.best.patch()).splitlines(),
    ]
    if proposals.best.strides[0] == 4:
        lines.append(
            "P2 costs: four times the anchors and most of the network's time; a larger "
            "preprocess.min_size is the other way"
        )
    return lines


def write_anchor_files(proposals: Proposals, categories: Categories, folder: Path) -> list[str]:
    """Write ``anchors.yaml``, ``anchors.json`` and ``anchors.png``; their names."""
    head = (
        "# Laid over a config: extends: YOUR.yaml, then these keys.\n"
        if proposals.best is not proposals.current
        else "# The configured anchors fit; these are the same.\n"
    )
    write_text(folder / "anchors.yaml", f"{head}{patch_yaml(proposals.best.patch())}\n")
    text = json.dumps(_to_json(proposals, categories), indent=2, ensure_ascii=False)
    write_text(folder / "anchors.json", text + "\n")
    draw_coverage(proposals, folder / "anchors.png")
    return ["anchors.yaml", "anchors.json", "anchors.png"]


def _to_json(proposals: Proposals, categories: Categories) -> dict[str, Any]:
    rows = list(_rows(proposals, categories))
    return {
        "best": proposals.best.name,
        "input_sizes": [list(size) for size in proposals.input_sizes],
        "sets": [
            {
                "name": proposal.name,
                "patch": proposal.patch(),
                "anchors_per_image": proposal.coverage.anchors_per_image,
                "coverage": {
                    name: {
                        "objects": shares[number].count,
                        "matched": shares[number].matched,
                        "rescued": shares[number].rescued,
                        "never": shares[number].never,
                    }
                    for name, shares in rows
                },
            }
            for number, proposal in enumerate(proposals.sets)
        ],
    }


def draw_coverage(proposals: Proposals, path: Path) -> None:
    """Bars of the outcomes by size, one panel for each set."""
    count = len(proposals.sets)
    figure = new_figure(3.4 * count + 0.6, 3.4)
    panels: list[Axes] = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for panel, proposal in zip(panels, proposals.sets, strict=True):
        rows = [(name, share) for name, share in proposal.coverage.by_side() if share.count]
        bottom = [0.0] * len(rows)
        for color, label, kind in zip(
            _COLORS, _OUTCOMES, ("matched", "rescued", "never"), strict=True
        ):
            heights = [100 * getattr(share, kind) for _, share in rows]
            panel.bar([name for name, _ in rows], heights, bottom=bottom, color=color, label=label)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        for position, (_, share) in enumerate(rows):
            panel.text(position, 101, str(share.count), ha="center", fontsize=7, color="#555")
        panel.set_title(
            f"{proposal.name}: {proposal.coverage.share().matched:.1%} matched", fontsize=9, pad=12
        )
        panel.tick_params(axis="x", labelrotation=35, labelsize=8)
        panel.set_ylim(0, 100)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("objects, %")
    below = "√(width × height) in pixels at the network's input; above: how many objects"
    figure.supxlabel(below, fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    write_png(figure, path)
