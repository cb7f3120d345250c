"""Draw the figures of docs/focal-loss.md.

    python docs/figures/make_figures.py [--folder docs/figures]

Every curve is `retina.losses.sigmoid_focal_loss` itself or follows from it; nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from retina.losses import sigmoid_focal_loss

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
COLORS = ("#3b4252", "#5e81ac", "#2a9d8f", "#d08700", "#c0392b")
"""One colour per γ in every figure; the first is cross-entropy."""
GREY, EASY, HARD = "#8a8f98", "#9fb8d8", "#c0392b"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 120,
}


def loss_of(p_t: Tensor, gamma: float) -> Tensor:
    """The loss of examples whose true class has the probability ``p_t``; α is off."""
    return sigmoid_focal_loss(p_t.logit(), torch.ones_like(p_t), alpha=None, gamma=gamma)


def gradient_of(p_t: Tensor, gamma: float) -> Tensor:
    """How hard such an example pulls at its logit: ``|dFL/dz|``."""
    logits = p_t.logit().requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.ones_like(p_t), alpha=None, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return gradient.abs()


def easy_share(gamma: float, easy: tuple[int, float], hard: tuple[int, float]) -> float:
    """The share of the summed loss that the easy examples have; each pair is (how many, p_t)."""
    sums = [number * float(loss_of(torch.tensor(p_t), gamma)) for number, p_t in (easy, hard)]
    return sums[0] / sum(sums)


def true_probability(p: Tensor, gamma: float, alpha: float = 0.5) -> Tensor:
    """The true probability of the foreground where a focal model that fits perfectly says ``p``.

    With FL(p) the loss of a foreground example and η the truth, p minimises
    α η FL(p) + (1 - α) (1 - η) FL(1 - p), so that α η FL'(p) = (1 - α) (1 - η) FL'(1 - p)
    (Charoenphakdee et al. 2021 for α = 1/2).
    """
    own, other = alpha * _slope(p, gamma), (1 - alpha) * _slope(1 - p, gamma)
    return other / (own + other)


def _slope(p: Tensor, gamma: float) -> Tensor:
    """``-FL'(p)``."""
    return (1 - p) ** gamma / p - gamma * (1 - p) ** (gamma - 1) * p.log()


def draw_curves(figure: Figure) -> None:
    """Figure 1 of Lin et al. 2017, and the gradient beside it."""
    losses, gradients = figure.subplots(1, 2)
    p_t = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for gamma, color in zip(GAMMAS, COLORS, strict=True):
        label = "γ = 0 (cross-entropy)" if gamma == 0 else f"γ = {gamma:g}"
        losses.plot(p_t, loss_of(p_t, gamma), color=color, label=label)
        gradients.plot(p_t, gradient_of(p_t, gamma), color=color)
    losses.axvspan(0.6, 1, color=EASY, alpha=0.25, lw=0)
    losses.text(0.8, 2.0, "well-classified", ha="center", color=GREY)
    losses.set(
        title="Loss", ylim=(0, 5), ylabel="FL", xlabel="$p_t$, probability of the true class"
    )
    losses.legend(loc="upper right")
    gradients.set(title="Gradient", ylabel="|∂FL/∂logit|", xlabel="$p_t$", ylim=(0, 1.45))
    note = "γ > 0 pulls harder than cross-entropy\nwhere the model is wrong"
    gradients.text(0.33, 1.25, note, color=GREY, va="center")
    for axes in (losses, gradients):
        axes.set_xlim(0, 1)


def draw_imbalance(figure: Figure) -> None:
    """100,000 easy negatives against 100 hard examples, by γ."""
    axes: Axes = figure.subplots()
    easy, hard = (100_000, 0.99), (100, 0.1)
    for row, gamma in enumerate(GAMMAS):
        share = 100 * easy_share(gamma, easy, hard)
        axes.barh(row, share, color=EASY, label="100,000 easy, $p_t$ = 0.99" if row == 0 else None)
        axes.barh(
            row,
            100 - share,
            left=share,
            color=HARD,
            label="100 hard, $p_t$ = 0.1" if row == 0 else None,
        )
        text = (
            f"{share:.0f} %"
            if share >= 1
            else f"{share:.2g} %"
            if share >= 0.01
            else "below 0.0001 %"
        )
        inside = share > 20
        axes.text(
            share / 2 if inside else share + 1.5,
            row,
            text if inside else f"easy: {text}",
            ha="center" if inside else "left",
            va="center",
            color="black" if inside else "white",
        )
    axes.set_yticks(range(len(GAMMAS)), [f"γ = {gamma:g}" for gamma in GAMMAS])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="share of the summed loss, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def draw_decisions(figure: Figure) -> None:
    """What the best possible model says, on a line with 50 times more background."""
    by_gamma, by_alpha = figure.subplots(1, 2, sharey=True)
    x = torch.linspace(-3, 6, 1801, dtype=torch.float64)
    foreground = torch.exp(-((x - 2.5) ** 2) / 2) / 51
    background = 50 * torch.exp(-(x**2) / 2) / 51
    eta = foreground / (foreground + background)
    gammas = zip((0.0, 2.0, 5.0), (COLORS[0], COLORS[3], COLORS[4]), strict=True)
    for gamma, color in gammas:
        _prediction(by_gamma, x, eta, gamma, 0.5, color, f"γ = {gamma:g}")
    alphas = zip((0.1, 0.25, 0.5, 0.75, 0.9), COLORS, strict=True)
    for alpha, color in alphas:
        _prediction(by_alpha, x, eta, 2.0, alpha, color, f"α = {alpha:g}")
    for axes in (by_gamma, by_alpha):
        axes.fill_between(x, 0.35 * background, color=EASY, alpha=0.5, lw=0)
        axes.fill_between(x, 0.35 * 50 * foreground, color=HARD, alpha=0.2, lw=0)
        axes.axhline(0.5, color=GREY, lw=0.8, ls=":")
        axes.set(xlim=(-2.5, 6), ylim=(0, 1.02), xlabel="x")
        axes.legend(loc="upper left")
        axes.text(0, 0.36, "background", ha="center", color=COLORS[1])
        axes.text(5.9, 0.12, "foreground × 50", ha="right", color=HARD)
    by_gamma.set(title="γ flattens, the decision stays (α off)", ylabel="predicted p")
    by_alpha.set(title="α moves the decision (γ = 2)")


def _prediction(
    axes: Axes, x: Tensor, eta: Tensor, gamma: float, alpha: float, color: str, label: str
) -> None:
    """The minimiser p of the expected loss at each x, and where it crosses 1/2."""
    p = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    truth = true_probability(p, gamma, alpha)
    said = p[torch.searchsorted(truth, eta).clamp(max=len(p) - 1)]
    axes.plot(x, said, color=color, label=label)
    crossing = x[(said >= 0.5).nonzero()[0, 0]]
    axes.plot(crossing, 0.5, "o", color=color, ms=5)


NOISE = 0.02


def noise_share(function: Callable[[Tensor, float], Tensor], gamma: float) -> float:
    """The share that 2 % wrong labels have of the summed ``function(p_t, gamma)``.

    The model is decent: the logit of the truth is normal with mean 3 and deviation 1.5, so that it
    is right about 98 % of the examples.
    """
    logits = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).double() * 1.5 + 3
    wrong = NOISE * float(function(torch.sigmoid(-logits), gamma).mean())
    right = (1 - NOISE) * float(function(torch.sigmoid(logits), gamma).mean())
    return wrong / (wrong + right)


def draw_noise(figure: Figure) -> None:
    """What wrong labels weigh."""
    shares, curves = figure.subplots(1, 2)
    gammas = torch.linspace(0, 5, 26).tolist()
    for function, color, name in (
        (loss_of, COLORS[1], "of the loss"),
        (gradient_of, COLORS[4], "of the gradient"),
    ):
        share = [100 * noise_share(function, gamma) for gamma in gammas]
        shares.plot(gammas, share, color=color, label=name)
    shares.axhline(100 * NOISE, color=GREY, ls=":", lw=1)
    shares.text(5, 100 * NOISE + 2, "of the examples: 2 %", ha="right", color=GREY)
    shares.set(xlabel="γ", ylabel="share of the wrong labels, %", ylim=(0, 100), xlim=(0, 5))
    shares.set_title("2 % of the labels are wrong")
    shares.legend(loc="upper left")
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for gamma, color in ((0.0, COLORS[0]), (2.0, COLORS[3]), (5.0, COLORS[4])):
        ratio = gradient_of(1 - p, gamma) / gradient_of(p, gamma)
        curves.plot(p, ratio, color=color, label=f"γ = {gamma:g}")
    curves.set(yscale="log", xlim=(0.5, 1), ylim=(1, 1e8))
    curves.set(xlabel="what the model rightly believes, p", ylabel="pull wrong / pull right")
    curves.set_title("One wrong label against one right one")
    curves.legend(loc="upper left")


def draw_lesions(figure: Figure) -> None:
    """Images of the segmentation example, and where their lesions are."""
    # Here, not above: an example is a program beside this one, no part of a package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from lesion_segmentation import draw

    images, masks = draw(64, seed=1)
    chosen = (masks.sum((1, 2, 3)) > 25).nonzero().flatten()[:6].tolist()
    grid = figure.subplots(2, len(chosen))
    for (above, below), index in zip(grid.T, chosen, strict=True):
        for axes in (above, below):
            axes.imshow(images[index, 0], cmap="gray", vmin=-3, vmax=5, interpolation="nearest")
            axes.set_axis_off()
        below.contour(masks[index, 0], levels=[0.5], colors=[HARD], linewidths=1.2)


FIGURES = {
    "loss_curves": (draw_curves, (9.0, 3.6)),
    "imbalance": (draw_imbalance, (7.0, 2.8)),
    "decisions": (draw_decisions, (9.0, 3.4)),
    "noise": (draw_noise, (9.0, 3.4)),
    "lesions": (draw_lesions, (9.0, 3.1)),
}


def make_figures(folder: Path) -> list[Path]:
    """Write every figure as a PNG into ``folder``; its paths."""
    paths = []
    for name, (draw, size) in FIGURES.items():
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    for path in make_figures(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
