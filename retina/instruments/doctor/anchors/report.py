"""The coverage by several sets of anchors: tables, files and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retina.instruments.doctor.anchors.coverage import Share
from retina.instruments.doctor.anchors.proposals import Proposals
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import patch_yaml
from retina.instruments.figures import new_figure, write_png
from retina.storage import write_text
from retina.structures import Categories
from retina.tables import Column, Table
from retina.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES = 20
_OUTCOMES = (
    ("matched", "#2a9d8f"),
    ("only a low-quality match", "#e9c46a"),
    ("unmatched", "#c8553d"),
)


def coverage_table(proposals: Proposals, categories: Categories) -> Table:
    """Matched, low-quality and unmatched, in percent, by size and class; it fits 80 columns."""
    names = [proposal.name for proposal in proposals.sets]
    return Table(
        title="objects matched / only by a low-quality match / unmatched, in %",
        columns=(
            Column("size at the input", "group"),
            Column("objects", "objects", justify="right"),
            *(Column(name, name, _percents, justify="right") for name in names),
        ),
        rows=tuple(
            {"group": group, "objects": shares[0].count, **dict(zip(names, shares, strict=True))}
            for group, shares in _rows(proposals, categories)
        ),
        look="lines",
    )


def _rows(proposals: Proposals, categories: Categories) -> Iterator[tuple[str, list[Share]]]:
    """Groups of objects, each with its share for every set: all, by size, the worst classes."""
    coverages = [proposal.coverage for proposal in proposals.sets]
    yield "all", [coverage.share() for coverage in coverages]
    for parts in zip(*(coverage.by_side() for coverage in coverages), strict=True):
        if parts[0][1].count:
            yield f"{parts[0][0]} pixels", [share for _, share in parts]
    count = len(categories)
    by_class = [coverage.by_class(count) for coverage in coverages]
    worst = sorted(range(count), key=lambda label: by_class[0][label].matched)
    for label in [label for label in worst if by_class[0][label].count][:_MOST_CLASSES]:
        yield categories.distinct_names[label], [shares[label] for shares in by_class]


def _percents(share: Share) -> str:
    return " / ".join(f"{100 * part:.0f}" for part in _parts(share))


def _parts(share: Share) -> tuple[float, float, float]:
    return share.matched, share.low_quality, share.unmatched


def settings_table(proposals: Proposals) -> Table:
    """The anchors of every set."""
    return Table(
        title="",
        columns=(
            Column("anchors", "name"),
            Column("sizes", "sizes", _listed),
            Column("scales", "scales", _listed),
            Column("ratios", "ratios", _listed),
            Column("an image", "per_image", "{:,.0f}".format, justify="right"),
        ),
        rows=tuple(
            {
                "name": proposal.name,
                "sizes": proposal.config.sizes,
                "scales": None if proposal.config.scales_per_level else proposal.config.scales,
                "ratios": None if proposal.config.ratios_per_level else proposal.config.ratios,
                "per_image": proposal.coverage.anchors_per_image,
            }
            for proposal in proposals.sets
        ),
        look="lines",
    )


def _listed(values: tuple[float, ...] | None) -> str:
    return "per level" if values is None else ", ".join(f"{value:.3g}" for value in values)


def advice(proposals: Proposals) -> list[str]:
    """What to do, with the patch as YAML."""
    before, after = proposals.current.coverage.share(), proposals.best.coverage.share()
    if proposals.best is proposals.current:
        return [
            f"keep the anchors as they are: {before.matched:.1%} of "
            f"{counted(before.count, 'object')} are "
            "matched, and no other set matches clearly more"
        ]
    lines = [
        f"take '{proposals.best.name}': {after.matched:.1%} of "
        f"{counted(after.count, 'object')} are matched "
        f"instead of {before.matched:.1%}, {after.unmatched:.1%} unmatched instead of "
        f"{before.unmatched:.1%}",
        *patch_yaml(proposals.best.patch()).splitlines(),
    ]
    if proposals.best.has_p2:
        lines.append(
            "P2 costs: four times the anchors and most of the network's time; a larger "
            "preprocess.min_size is the other way"
        )
    return lines


def write_anchor_files(proposals: Proposals, context: CheckContext, folder: Path) -> list[str]:
    """Write ``anchors.yaml``, ``anchors.json`` and ``anchors.png``; their names."""
    head = (
        "# Laid over a config: extends: YOUR.yaml, then these keys.\n"
        if proposals.best is not proposals.current
        else "# The configured anchors fit; these are the same.\n"
    )
    write_text(folder / "anchors.yaml", f"{head}{patch_yaml(proposals.best.patch())}\n")
    text = json.dumps(_to_json(proposals, context), indent=2, ensure_ascii=False)
    write_text(folder / "anchors.json", text + "\n")
    draw_coverage(proposals, folder / "anchors.png")
    return ["anchors.yaml", "anchors.json", "anchors.png"]


def _to_json(proposals: Proposals, context: CheckContext) -> dict[str, Any]:
    rows = list(_rows(proposals, context.train.categories))
    return {
        "best": proposals.best.name,
        "input_sizes": [list(size) for size in context.input_sizes],
        "sets": [
            {
                "name": proposal.name,
                "patch": proposal.patch(),
                "anchors_per_image": proposal.coverage.anchors_per_image,
                "coverage": {group: _json_share(shares[number]) for group, shares in rows},
            }
            for number, proposal in enumerate(proposals.sets)
        ],
    }


def _json_share(share: Share) -> dict[str, float]:
    return {
        "objects": share.count,
        "matched": share.matched,
        "rescued": share.low_quality,
        "never": share.unmatched,
    }


def draw_coverage(proposals: Proposals, path: Path) -> None:
    """Bars of the outcomes by size, one panel for each set."""
    count = len(proposals.sets)
    figure = new_figure(3.4 * count + 0.6, 3.4)
    panels: list[Axes] = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for panel, proposal in zip(panels, proposals.sets, strict=True):
        rows = [(name, share) for name, share in proposal.coverage.by_side() if share.count]
        bottom = [0.0] * len(rows)
        for number, (label, color) in enumerate(_OUTCOMES):
            heights = [100 * _parts(share)[number] for _, share in rows]
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
