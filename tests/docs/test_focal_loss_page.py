"""docs/focal-loss.md: its numbers are right, its code runs, its tables are those measured."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

import retina.losses
from retina.losses import sigmoid_focal_loss

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "focal-loss.md").read_text()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    return importlib.import_module("make_figures")


def loss_of(p_t: float, gamma: float) -> float:
    logit = torch.tensor(p_t, dtype=torch.float64).logit()
    return float(sigmoid_focal_loss(logit, torch.ones_like(logit), alpha=None, gamma=gamma))


@pytest.mark.parametrize(
    ("p_t", "factor", "said"),
    [
        (0.1, 1.2, "| 1.2 |"),
        (0.5, 4, "**4**"),
        (0.9, 100, "**100**"),
        (0.968, 977, "**977**"),
        (0.99, 10_000, "10,000"),
    ],
)
def test_how_much_smaller_the_loss_is_at_gamma_2(p_t: float, factor: float, said: str) -> None:
    ratio = loss_of(p_t, 0) / loss_of(p_t, 2)
    assert ratio == pytest.approx((1 - p_t) ** -2, rel=1e-9)
    assert ratio == pytest.approx(factor, rel=0.03 if p_t == 0.1 else 1e-3)
    (row,) = re.findall(r"^\| factor 1 / .*$", PAGE, flags=re.MULTILINE)
    assert said in row


def test_easy_negatives_against_hard_positives(figures: ModuleType) -> None:
    assert 100_000 * loss_of(0.99, 0) == pytest.approx(1005, abs=0.5)
    assert 100 * loss_of(0.1, 0) == pytest.approx(230, abs=0.5)
    assert 100_000 * loss_of(0.99, 2) == pytest.approx(0.10, abs=0.005)
    assert 100 * loss_of(0.1, 2) == pytest.approx(187, abs=0.5)
    easy, hard = (100_000, 0.99), (100, 0.1)
    assert figures.easy_share(0.0, easy, hard) == pytest.approx(0.81, abs=0.005)
    assert figures.easy_share(2.0, easy, hard) == pytest.approx(0.0005, abs=0.00005)
    for said in ("1,005 | **81 %**", "230 | 19 %", "0.10 | **0.05 %**", "187 | 99.95 %"):
        assert said in PAGE


def test_what_an_untrained_network_loses() -> None:
    assert 100_000 * loss_of(0.5, 0) == pytest.approx(69_000, rel=0.01)
    assert "a loss of 69,000" in PAGE


def test_the_share_of_wrong_labels(figures: ModuleType) -> None:
    for name, function in (("loss", figures.loss_of), ("gradient", figures.gradient_of)):
        shares = [figures.noise_share(function, gamma) for gamma in (0.0, 1.0, 2.0, 5.0)]
        row = " | ".join(f"{100 * share:.0f} %" for share in shares)
        assert f"| of the {name} | {row} |" in PAGE


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.5), (2.0, 0.25), (5.0, 0.5)])
def test_what_a_perfect_focal_model_says(figures: ModuleType, gamma: float, alpha: float) -> None:
    """By brute force: the p of the smallest expected loss, for each true probability."""
    truths = torch.tensor([0.002, 0.01, 0.1, 0.5, 0.9, 0.99], dtype=torch.float64)
    p = torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:-1]
    loss = {
        target: sigmoid_focal_loss(
            p.logit(),
            torch.full_like(p, target),
            alpha=None if alpha == 0.5 else alpha,
            gamma=gamma,
        )
        for target in (0.0, 1.0)
    }
    expected = truths[:, None] * loss[1.0] + (1 - truths[:, None]) * loss[0.0]
    said = p[expected.argmin(1)]
    back = figures.true_probability(said, gamma, alpha)
    torch.testing.assert_close(back, truths, atol=5e-4, rtol=0)
    name = "α off" if alpha == 0.5 else f"α = {alpha:g}"
    cells = " | ".join(f"{value:.3f}" for value in said)
    (row,) = re.findall(rf"^\| γ = {gamma:g}, {name} \| (.*) \|$", PAGE, flags=re.MULTILINE)
    for ours, printed in zip(cells.split(" | "), row.split(" | "), strict=True):
        assert float(ours) == pytest.approx(float(printed), abs=0.00101)


def test_alpha_moves_the_decision_and_gamma_does_not(figures: ModuleType) -> None:
    half = torch.tensor([0.5], dtype=torch.float64)
    for gamma in (0.0, 0.5, 2.0, 5.0):
        for alpha in (0.1, 0.25, 0.5, 0.9):
            truth = figures.true_probability(half, gamma, alpha)
            assert float(truth) == pytest.approx(1 - alpha)


def test_the_trap_of_torchvision_is_as_told() -> None:
    logits, negatives = torch.randn(50), torch.zeros(50)
    assert torchvision_focal_loss(logits, negatives, alpha=1.0).count_nonzero() == 0
    assert sigmoid_focal_loss(logits, negatives, alpha=1.0).count_nonzero() == 50
    ours = sigmoid_focal_loss(logits, negatives, alpha=None)
    torch.testing.assert_close(torchvision_focal_loss(logits, negatives, alpha=-1), ours)


def test_the_code_of_the_page_runs_in_order() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/focal-loss.md", "exec"), names)
    classifier = names["classifier"]
    assert isinstance(classifier, torch.nn.Conv2d)
    assert classifier.bias is not None
    bias = float(classifier.bias[0].detach())
    assert bias == pytest.approx(-4.595, abs=5e-4)
    assert torch.tensor(bias).sigmoid().item() == pytest.approx(0.01)
    for name in ("loss", "dice", "unified"):
        value = names[name]
        assert isinstance(value, torch.Tensor)
        assert value.ndim == 0
        assert 0 < value.item() < 100


def test_links_figures_and_names_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (DOCS / link).exists(), link
    headings = re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in anchors, anchor
    for name in re.findall(r"`(\w+_loss|\w+Loss|class_balanced_\w+)`", PAGE):
        assert hasattr(retina.losses, name), name


def test_the_figures_are_drawn(figures: ModuleType, tmp_path: Path) -> None:
    paths = figures.make_figures(tmp_path)
    shown = re.findall(r"!\[.*?\]\(figures/(.*?)\)", PAGE)
    assert sorted(path.name for path in paths) == sorted(shown)
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 10_000 < path.stat().st_size < 250_000


@pytest.mark.parametrize("name", ["fraud_tabular", "lesion_segmentation"])
def test_the_tables_are_those_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    side_by_side = importlib.import_module("side_by_side")
    rows = side_by_side.read_rows(DOCS / "examples" / f"{name}.json")
    assert all(len(values) == 5 for row in rows for values in row.scores.values())
    marks = rf"<!-- table: examples/{name}.json -->\n(.*?)\n<!-- end -->"
    (printed,) = re.findall(marks, PAGE, flags=re.DOTALL)
    assert printed.strip() == side_by_side.table(rows)
