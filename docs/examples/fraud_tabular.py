"""Fraud at 1:500: five losses, the same network, on synthetic card payments.

    python docs/examples/fraud_tabular.py --seeds 5

The payments are invented (`draw`); the difficulties are those of real ones: several kinds of
fraud that share little, honest customers who behave oddly and outnumber the fraud, heavy tails,
and a fifth of the fraud that hardly differs from what is honest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from side_by_side import (
    Candidate,
    LossFunction,
    Trial,
    arguments,
    average_precision,
    compare,
    recall_at_precision,
    report,
)
from torch import Tensor, nn

from retina.losses import dice_loss, sigmoid_focal_loss, unified_focal_loss

FRAUD_RATE = 1 / 500
NUM_SEGMENTS = 6
NUM_HABITS = 16
"""Features of how a customer behaves, beside the six of the payment itself."""
KINDS = {"card testing": 0.3, "takeover": 0.3, "cash-out": 0.2, "mimicry": 0.2}
ODD_BUT_HONEST = 0.005


@dataclass(frozen=True)
class Budget:
    """How much is drawn and trained: rows and passes over the training rows."""

    train: int = 200_000
    validation: int = 150_000
    test: int = 300_000
    epochs: int = 12
    batch_size: int = 4096
    tuning_seeds: tuple[int, ...] = (101, 102)


SMOKE = Budget(5_000, 5_000, 5_000, epochs=1, batch_size=2048, tuning_seeds=(101,))


@dataclass(frozen=True)
class World:
    """What all payments have in common, whatever the seed of a draw.

    Attributes:
        centres: ``(NUM_SEGMENTS, NUM_HABITS)``, the habits of each customer segment.
        mixing: ``(NUM_HABITS, NUM_HABITS)``, how habits hang together.
        marks: ``(4, NUM_HABITS)``, unit vectors: how the habits look during each kind of fraud.
    """

    centres: Tensor
    mixing: Tensor
    marks: Tensor


def make_world() -> World:
    """The one world of this example."""
    dice = torch.Generator().manual_seed(2017)
    mixing = torch.eye(NUM_HABITS) + 0.25 * torch.randn(NUM_HABITS, NUM_HABITS, generator=dice)
    return World(
        centres=1.2 * torch.randn(NUM_SEGMENTS, NUM_HABITS, generator=dice),
        mixing=mixing,
        marks=F.normalize(torch.randn(len(KINDS), NUM_HABITS, generator=dice), dim=1),
    )


def draw(world: World, num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """``num_rows`` payments.

    An honest payment has the habits of its segment (correlated, tails of Student's t with 5 degrees
    of freedom), a log-amount with t(3) tails, an hour, a number of payments in the last hour, days
    since the last one, and the merchant's risk. Fraud is such a payment after one of four changes,
    each with a strength drawn per row; an odd but honest one has had the same at 0.6 of it.

    Returns:
        Features ``(num_rows, 22)`` and labels ``(num_rows,)``, 1 for fraud.
    """
    dice = torch.Generator().manual_seed(seed)
    segment = torch.randint(NUM_SEGMENTS, (num_rows,), generator=dice)
    habits = world.centres[segment] + _student(5, (num_rows, NUM_HABITS), dice) @ world.mixing
    amount = 3 + 0.3 * segment + 0.7 * _student(3, (num_rows,), dice)
    hour = 14 + 4 * torch.randn(num_rows, generator=dice)
    velocity = torch.poisson(torch.full((num_rows,), 0.4), generator=dice)
    days = torch.empty(num_rows).exponential_(0.3, generator=dice)
    risk = torch.rand(num_rows, generator=dice) ** 3

    draws = torch.rand(num_rows, generator=dice)
    labels = (draws < FRAUD_RATE).float()
    odd = (draws >= FRAUD_RATE) & (draws < FRAUD_RATE + ODD_BUT_HONEST)
    strength = (labels + 0.6 * odd) * (0.6 + 0.8 * torch.rand(num_rows, generator=dice))
    shares = torch.tensor(list(KINDS.values()))
    kind = torch.multinomial(shares, num_rows, replacement=True, generator=dice)
    testing, takeover, cash_out, mimicry = (strength * (kind == k) for k in range(len(KINDS)))

    reach = torch.tensor([3.5, 5.0, 3.5, 2.5])  # how far each kind moves the habits
    habits = habits + (strength * reach[kind])[:, None] * world.marks[kind]
    amount = amount - 1.5 * testing + 1.8 * cash_out
    velocity = velocity + torch.poisson(4 * testing, generator=dice)
    hour = hour + 11 * takeover
    days = days * (1 + 2 * takeover)
    risk = (risk + 0.4 * cash_out + 0.2 * mimicry).clamp(max=1)
    turn = hour * (2 * math.pi / 24)
    payment = [amount, turn.sin(), turn.cos(), velocity.log1p(), days.log1p(), risk]
    return torch.cat([torch.stack(payment, dim=1), habits], dim=1), labels


def _student(degrees: int, shape: tuple[int, ...], dice: torch.Generator) -> Tensor:
    """Student's t from normals: z / sqrt(χ² / ν)."""
    squares = torch.randn(degrees, *shape, generator=dice).square().mean(0)
    return torch.randn(shape, generator=dice) / squares.sqrt()


def make_network(seed: int, num_features: int, prior: bool) -> nn.Sequential:
    """Two hidden layers of 64; with ``prior``, all rows start at the rate of fraud, else at 1/2."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(num_features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    start = math.log(FRAUD_RATE / (1 - FRAUD_RATE)) if prior else 0.0
    nn.init.constant_(network[-1].bias, start)
    return network


def train(
    features: Tensor, labels: Tensor, trial: Trial, seed: int, budget: Budget
) -> nn.Sequential:
    """AdamW with a cosine schedule; the weights of the last step, nothing is selected."""
    network = make_network(seed, features.shape[1], trial.prior)
    optimizer = torch.optim.AdamW(network.parameters(), lr=trial.lr, weight_decay=1e-2)
    num_batches = len(labels) // budget.batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.epochs * num_batches)
    dice = torch.Generator().manual_seed(seed)
    for _ in range(budget.epochs):
        order = torch.randperm(len(labels), generator=dice)
        for rows in order[: num_batches * budget.batch_size].split(budget.batch_size):
            optimizer.zero_grad()
            trial.loss(network(features[rows]).squeeze(1), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network


def weighted_cross_entropy(weight: float) -> LossFunction:
    """Cross-entropy in which a fraud counts ``weight`` times."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(weight))

    return loss


def focal(gamma: float, alpha: float) -> LossFunction:
    """The focal loss, summed and divided by the number of frauds in the batch."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        total = sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma, reduction="sum")
        return total / labels.sum().clamp(min=1)

    return loss


def dice(smooth: float) -> LossFunction:
    """Dice, with the whole batch as one region."""
    return lambda logits, labels: dice_loss(
        logits.view(1, 1, -1), labels.view(1, 1, -1), smooth=smooth
    )


def unified_focal(gamma: float, delta: float) -> LossFunction:
    """The asymmetric Unified Focal Loss, with the whole batch as one region."""
    return lambda logits, labels: unified_focal_loss(
        logits.view(1, 1, -1), labels.view(1, 1, -1), gamma=gamma, delta=delta
    )


LR = (1e-3, 3e-3, 1e-2, 3e-2)
CANDIDATES = (
    Candidate("cross-entropy", lambda: weighted_cross_entropy(1.0), {"lr": 3e-3}, {"lr": LR}),
    Candidate(
        "cross-entropy, bias at 0",
        lambda: weighted_cross_entropy(1.0),
        {"lr": 3e-3},
        {"lr": LR},
        prior=False,
    ),
    Candidate(
        "weighted cross-entropy",
        weighted_cross_entropy,
        {"lr": 3e-3, "weight": 20.0},
        {"lr": LR, "weight": (4.0, 20.0, 100.0, 500.0)},
    ),
    Candidate(
        "focal",
        focal,
        {"lr": 3e-3, "gamma": 2.0, "alpha": 0.25},
        {"lr": LR, "gamma": (0.5, 1.0, 2.0, 3.0), "alpha": (0.1, 0.25, 0.5, 0.75)},
    ),
    Candidate("Dice", dice, {"lr": 3e-3, "smooth": 1e-6}, {"lr": LR, "smooth": (1e-6, 0.1, 1.0)}),
    Candidate(
        "Unified Focal",
        unified_focal,
        {"lr": 3e-3, "gamma": 0.5, "delta": 0.6},
        {"lr": LR, "gamma": (0.1, 0.25, 0.5, 0.75), "delta": (0.4, 0.6, 0.75, 0.9)},
    ),
)


@dataclass(frozen=True)
class Task:
    """The data of one seed, standardised by its training rows."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def make_task(seed: int, num_train: int, num_test: int) -> Task:
    """Training and test rows of one world that share no row."""
    world = make_world()
    features, labels = draw(world, num_train, seed=2 * seed)
    unseen, truth = draw(world, num_test, seed=2 * seed + 1)
    mean, deviation = features.mean(0), features.std(0)
    return Task(((features - mean) / deviation, labels), ((unseen - mean) / deviation, truth))


def evaluate(task: Task, trial: Trial, seed: int, budget: Budget) -> dict[str, float]:
    """Train on one seed and score rows that were never seen."""
    network = train(*task.train, trial, seed, budget)
    features, truth = task.test
    with torch.inference_mode():
        logits = network(features).squeeze(1)
    return {
        "average precision": average_precision(logits, truth),
        "recall at precision 0.9": recall_at_precision(logits, truth, 0.9),
        "recall at precision 0.5": recall_at_precision(logits, truth, 0.5),
        "mean p / fraud rate": float(logits.double().sigmoid().mean() / truth.double().mean()),
    }


def main() -> None:
    """Tune and test every loss, and print the table."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    budget = SMOKE if options.smoke else Budget()
    started = time.perf_counter()
    tuning = {
        seed: make_task(seed, budget.train, budget.validation) for seed in budget.tuning_seeds
    }
    tasks = {seed: make_task(seed, budget.train, budget.test) for seed in range(options.seeds)}

    def validate(trial: Trial) -> float:
        outcomes = [evaluate(task, trial, seed, budget) for seed, task in tuning.items()]
        return sum(outcome["average precision"] for outcome in outcomes) / len(outcomes)

    def test(trial: Trial, seed: int) -> dict[str, float]:
        return evaluate(tasks[seed], trial, seed, budget)

    report(compare(CANDIDATES, validate, test, options.seeds), started, options.json)


if __name__ == "__main__":
    main()
