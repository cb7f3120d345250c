"""The runnable examples of the guide: their metrics, their data, and that they run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sklearn.metrics import average_precision_score

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "docs" / "examples"
LOSSES = ["cross-entropy", "weighted cross-entropy", "focal", "Dice", "Unified Focal"]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture
def side_by_side(load) -> ModuleType:
    return load("side_by_side")


def test_average_precision_of_a_hand_made_case(side_by_side: ModuleType) -> None:
    # Ranked 1 0 1 0: precision 1 at recall 1/2, then 2/3 at recall 1.
    scores, labels = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0, 1, 1])
    expected = 0.5 * 1 + 0.5 * 2 / 3
    assert side_by_side.average_precision(scores, labels) == pytest.approx(expected)


def test_equal_scores_are_one_threshold(side_by_side: ModuleType) -> None:
    labels = torch.tensor([1.0, 0, 0, 0])
    assert side_by_side.average_precision(torch.zeros(4), labels) == pytest.approx(0.25)
    assert side_by_side.average_precision(torch.zeros(4), labels.flip(0)) == pytest.approx(0.25)


def test_average_precision_agrees_with_scikit_learn(side_by_side: ModuleType) -> None:
    dice = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, generator=dice).mul(5).round()  # with ties
    labels = (torch.rand(2000, generator=dice) < (scores / 10).sigmoid() * 0.1).float()
    ours = side_by_side.average_precision(scores, labels)
    assert ours == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_recall_at_precision_of_a_hand_made_case(side_by_side: ModuleType) -> None:
    scores, labels = torch.tensor([5.0, 4, 3, 2, 1]), torch.tensor([1.0, 0, 1, 1, 0])
    # precision 1, 1/2, 2/3, 3/4, 3/5 at recall 1/3, 1/3, 2/3, 1, 1
    assert side_by_side.recall_at_precision(scores, labels, 0.9) == pytest.approx(1 / 3)
    assert side_by_side.recall_at_precision(scores, labels, 0.75) == 1
    assert side_by_side.recall_at_precision(-scores, labels, 0.9) == 0


def test_settings_are_searched_one_after_the_other(side_by_side: ModuleType) -> None:
    candidate = side_by_side.Candidate(
        "made up",
        lambda gamma, alpha: (gamma, alpha),
        start={"lr": 1.0, "gamma": 2.0, "alpha": 0.25},
        search={"lr": (1.0, 2.0), "gamma": (0.0, 2.0, 5.0), "alpha": (0.25, 0.75)},
    )
    seen = []

    def validate(trial) -> float:
        seen.append((trial.lr, *trial.loss))
        gamma, alpha = trial.loss
        return trial.lr - abs(gamma - 5) + alpha

    best, num_trials = side_by_side.tune(candidate, validate)
    assert best == {"lr": 2.0, "gamma": 5.0, "alpha": 0.75}
    assert seen == [
        (1.0, 2.0, 0.25),
        (2.0, 2.0, 0.25),
        (2.0, 0.0, 0.25),
        (2.0, 5.0, 0.25),
        (2.0, 5.0, 0.75),
    ]
    assert num_trials == len(seen)


def test_the_table_compares_seed_by_seed(side_by_side: ModuleType) -> None:
    rows = [
        side_by_side.Row("cross-entropy", {"lr": 0.01}, 3, {"AP": [0.1, 0.2, 0.3]}),
        side_by_side.Row("focal", {"lr": 0.01, "gamma": 2.0}, 9, {"AP": [0.2, 0.1, 0.6]}),
    ]
    assert side_by_side.table(rows).splitlines() == [
        "| loss | chosen | AP | AP against cross-entropy |",
        "|---|---|---|---|",
        "| cross-entropy | lr 0.01 | 0.200 ± 0.100 |  |",
        "| focal | lr 0.01, gamma 2 | 0.300 ± 0.265 | +0.100 ± 0.200, 2 of 3 seeds |",
    ]


def test_one_payment_in_500_is_fraud(load) -> None:
    fraud = load("fraud_tabular")
    features, labels = fraud.draw(fraud.make_world(), 200_000, seed=3)
    assert features.shape == (200_000, 22)
    assert labels.sum().item() == pytest.approx(400, abs=4 * 20)  # four deviations of a Poisson
    again, _ = fraud.draw(fraud.make_world(), 200_000, seed=3)
    assert torch.equal(features, again)
    # No single feature gives it away: velocity alone, the best, finds some of the card testing.
    best = max(
        load("side_by_side").average_precision(sign * features[:, column], labels)
        for column in range(22)
        for sign in (-1, 1)
    )
    assert best < 0.2


def test_lesions_are_less_than_one_percent(load) -> None:
    lesion = load("lesion_segmentation")
    images, masks = lesion.draw(256, seed=3)
    assert images.shape == masks.shape == (256, 1, 64, 64)
    assert 0.003 < masks.mean().item() < 0.006
    empty = (masks.sum((1, 2, 3)) == 0).float().mean().item()
    assert empty == pytest.approx(0.368, abs=0.1)  # e^-1: Poisson(1)
    lesions, rest = images[masks == 1].mean(), images[masks == 0].mean()
    assert 1 < (lesions - rest).item() < 2.5  # in deviations of the noise


def test_the_threshold_is_the_one_of_the_highest_dice(load) -> None:
    lesion = load("lesion_segmentation")
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0])
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert lesion.best_threshold(logits, truth) == 1.0
    assert lesion.dice_score(logits, truth, 1.0) == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["fraud_tabular", "lesion_segmentation"])
def test_every_loss_starts_from_the_same_weights(load, name: str) -> None:
    example = load(name)
    for candidate in example.CANDIDATES:
        assert set(candidate.start) == set(candidate.search)
        assert next(iter(candidate.search)) == "lr"
        names = list(candidate.search)
        assert "gamma" not in names or names.index("gamma") == 1, "γ comes before α and δ"
        for setting, value in candidate.start.items():
            assert value in candidate.search[setting], (candidate.name, setting)
        assert candidate.search["lr"] == example.LR


@pytest.mark.parametrize("name", ["fraud_tabular", "lesion_segmentation"])
def test_the_example_runs_and_writes_its_numbers(
    side_by_side: ModuleType, name: str, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--smoke", "--seeds", "2", "--json", numbers],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    rows = side_by_side.read_rows(numbers)
    assert [row.name for row in rows if row.name in LOSSES] == LOSSES
    for row in rows:
        assert row.num_trials >= 3
        for metric, values in row.scores.items():
            assert len(values) == 2, metric
            assert all(value >= 0 for value in values), metric
    assert side_by_side.table(rows) in done.stdout
    assert json.loads(numbers.read_text())[0]["settings"]["lr"] > 0
