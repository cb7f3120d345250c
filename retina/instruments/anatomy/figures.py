"""The anatomy as figures (PNG)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina.instruments.anatomy.curves import HARDEST, CumulativeLoss, loss_curves
from retina.instruments.anatomy.elements import EASY, EASY_LOGIT
from retina.instruments.anatomy.report import CURVE_P_T, cumulative_losses
from retina.instruments.anatomy.result import Breakdown, LossAnatomy
from retina.instruments.figures import new_figure, write_png
from retina.wording import counted

# Okabe and Ito's colours, which colour-blind eyes tell apart.
_GROUP_STYLES = (
    ("easy negatives", "#b4bcc6"),
    ("other negatives", "#0072b2"),
    ("positives", "#d55e00"),
)
_GAMMA_COLORS = ("#1b1b1b", "#56b4e9", "#009e73", "#d55e00", "#aa3377")
_GREY = "#666666"
_MAX_CLASSES = 30


def write_figures(folder: Path, anatomy: LossAnatomy, title: str) -> tuple[Path, ...]:
    """Write every figure; returns their paths.

    Args:
        folder: is made where it does not exist.
        anatomy: what to draw.
        title: says what detector and data it is of.

    Raises:
        UserError: the folder may not be written to.
        RunError: the disk is full.
    """
    figures = {
        "shares.png": shares_figure(anatomy),
        "p_t.png": probability_figure(anatomy),
        "cumulative_loss.png": cumulative_figure(anatomy),
    }
    for figure in figures.values():
        figure.supxlabel(f"{title} · {anatomy.parameters}", fontsize=7.5, color=_GREY)
    figures["loss_curves.png"] = loss_curves_figure()
    paths = []
    for name, figure in figures.items():
        write_png(figure, folder / name)
        paths.append(folder / name)
    return tuple(paths)


def shares_figure(anatomy: LossAnatomy) -> Figure:
    """Stacked bars: the loss and its gradient, by group; overall, per level, per class."""
    classes = _shown_classes(anatomy)
    names = ["everything", *anatomy.level_names, *(name for name, _ in classes)]
    parts = [anatomy.overall(), *anatomy.per_level(), *(part for _, part in classes)]
    gaps = np.cumsum([0, 1.6, *[1.0] * (len(anatomy.level_names) - 1), 1.6])
    places = np.concatenate([gaps, gaps[-1] + np.arange(1, len(classes))])
    figure = new_figure(8.4, 1.9 + 0.27 * len(names))
    # Room between the panels: the one's "100%" stands right before the other's "0%".
    figure.set_layout_engine("constrained", wspace=0.08)
    axes = figure.subplots(1, 2, sharey=True)
    shares = [[group.loss_share for group in part.parts] for part in parts]
    _stack(axes[0], places, np.array(shares), "share of the classification loss")
    shares = [[group.gradient_share for group in part.parts] for part in parts]
    _stack(axes[1], places, np.array(shares), "share of the gradient, |∂loss/∂logit|")
    axes[0].set_yticks(places, [_shortened(name) for name in names])
    axes[0].set_ylim(places[-1] + 0.6, -0.6)
    total = anatomy.overall().loss
    for place, part in zip(places, parts, strict=True):
        axes[1].text(1.03, place, _of_all(part.loss, total), va="center", fontsize=8, color=_GREY)
    axes[1].text(1.03, 1.0, "of all\nloss", transform=axes[1].transAxes, fontsize=8, color=_GREY)
    if len(classes) < len(anatomy.class_names):
        note = (
            f"the {len(classes)} of {counted(len(anatomy.class_names), 'class')} with the most loss"
        )
        axes[0].text(0, places[-len(classes)] - 0.6, note, fontsize=8, color=_GREY)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False
    )
    return figure


def _stack(axes: Axes, places: np.ndarray, shares: np.ndarray, label: str) -> None:
    left = np.zeros(len(places))
    for group, (name, color) in enumerate(_GROUP_STYLES):
        bars = axes.barh(places, shares[:, group], left=left, height=0.78, color=color, label=name)
        texts = [f"{share:.0%}" if share >= 0.08 else "" for share in shares[:, group]]
        ink = "#222222" if group == 0 else "white"
        axes.bar_label(bars, texts, label_type="center", fontsize=7.5, color=ink)
        left += shares[:, group]
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)


def _of_all(loss: float, total: float) -> str:
    share = loss / total if total else 0.0
    return "< 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _shown_classes(anatomy: LossAnatomy) -> list[tuple[str, Breakdown]]:
    """The classes, or where there are very many, those with the most loss."""
    classes = list(zip(anatomy.class_names, anatomy.per_class(), strict=True))
    if len(classes) <= _MAX_CLASSES:
        return classes
    return sorted(classes, key=lambda named: -named[1].loss)[:_MAX_CLASSES]


def probability_figure(anatomy: LossAnatomy) -> Figure:
    """Histograms of p_t of negatives and positives, both axes stretched where it matters."""
    figure = new_figure(8.4, 4.4)
    axes = figure.subplots()
    histogram = anatomy.histogram()
    both = histogram.negatives + histogram.positives
    filled = np.flatnonzero(both)
    for counts, (name, color), fill in (
        (histogram.negatives, ("negatives", _GROUP_STYLES[1][1]), 0.28),
        (histogram.positives, ("positives", _GROUP_STYLES[2][1]), 0.4),
    ):
        label = f"{name} ({counts.sum():,.0f})"
        edges = histogram.logit_edges
        axes.stairs(counts, edges, fill=True, color=color, alpha=fill, lw=0)
        axes.stairs(counts, edges, color=color, lw=1.2, label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.7, both.max() * 6 if filled.size else 10)
    if filled.size:
        edges = histogram.logit_edges
        axes.set_xlim(edges[filled[0]] - 0.5, edges[filled[-1] + 1] + 0.5)
    axes.axvline(EASY_LOGIT, color=_GREY, lw=1, ls=(0, (4, 3)))
    axes.annotate(
        f"easy: $p_t$ > {EASY}",
        (EASY_LOGIT, 1),
        (4, -12),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=8,
        color=_GREY,
    )
    _probability_ticks(axes)
    axes.set_xlabel("$p_t$, the probability that is given to the truth (logit scale)")
    axes.set_ylabel("anchors × classes")
    axes.legend(loc="upper left", frameon=False)
    return figure


def _probability_ticks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    powers = range(1, 14, 1 if high - low < 22 else 2)
    ticks = [(_logit(10.0**-n), f"{10.0**-n:g}" if n < 4 else f"$10^{{-{n}}}$") for n in powers]
    ticks += [(0.0, "0.5")]
    ticks += [
        (-_logit(10.0**-n), f"{1 - 10.0**-n:g}" if n < 4 else f"$1-10^{{-{n}}}$") for n in powers
    ]
    shown = [(place, label) for place, label in ticks if low <= place <= high]
    axes.set_xticks([place for place, _ in shown], [label for _, label in shown])


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def cumulative_figure(anatomy: LossAnatomy) -> Figure:
    """Figure 4 of Lin et al. 2017, on this detector's own predictions."""
    background, foreground = cumulative_losses(anatomy)
    figure = new_figure(8.4, 4.4)
    left, right = figure.subplots(1, 2, sharey=True)
    _cumulative(left, foreground, "foreground")
    _cumulative(right, background, "background")
    left.set_ylabel("cumulative normalised loss")
    return figure


def _cumulative(axes: Axes, curves: CumulativeLoss, name: str) -> None:
    for (gamma, values), color in zip(curves.values.items(), _GAMMA_COLORS, strict=False):
        hardest = curves.hardest[gamma]
        label = f"γ = {gamma:g}: " + (f"{hardest:.0%}" if hardest < 0.995 else "> 99%")
        axes.plot(curves.fractions, values, color=color, lw=1.8, label=label)
    axes.set_xlabel(f"fraction of {name} samples, easiest first")
    axes.set_title(f"{name} ({curves.num_samples:,} samples)", fontsize=10)
    if curves.num_samples:
        # Sorted by their loss, no fraction holds more than its share: this corner is always free.
        title = f"loss of the hardest {HARDEST:.0%}"
        axes.legend(loc="upper left", frameon=False, title=title, alignment="left", fontsize=9)
    else:
        axes.text(0.5, 0.5, "no samples", ha="center", va="center", color=_GREY)
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)


def loss_curves_figure() -> Figure:
    """Figure 1 of Lin et al. 2017."""
    figure = new_figure(6.2, 4.4)
    axes = figure.subplots()
    for (gamma, values), color in zip(loss_curves(CURVE_P_T).items(), _GAMMA_COLORS, strict=True):
        name = f"γ = {gamma:g}" + (" (cross-entropy)" if gamma == 0 else "")
        axes.plot(CURVE_P_T, values, color=color, lw=1.8, label=name)
    axes.axvspan(0.6, 1, color="#f2f2f2", lw=0)
    axes.text(0.8, 0.62, "well-classified\nexamples", ha="center", fontsize=8.5, color=_GREY)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 5)
    axes.set_xlabel("probability of the ground truth class, $p_t$")
    axes.set_ylabel(r"loss, $-(1 - p_t)^\gamma\,\log(p_t)$")
    axes.legend(loc="upper right", frameon=False)
    return figure


def _shortened(name: str, limit: int = 24) -> str:
    """Both ends of a long name: what tells two of them apart may be at either."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-limit // 2 + 1 :]}"
