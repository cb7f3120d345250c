"""What the two examples share: ranking metrics, tuning each loss fairly, and the table.

Every loss gets the same data, the same initial weights per seed, the same number of steps, and a
search of its own on validation data that no reported number comes from.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]
Settings = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One way to train: the loss, the peak learning rate, and whether the bias starts low."""

    loss: LossFunction
    lr: float
    prior: bool


@dataclass(frozen=True)
class Candidate:
    """A loss to compare.

    Attributes:
        name: as the table prints it.
        make: builds the loss from its own settings (all of ``start`` but ``lr``).
        start: the settings that the search begins with, ``lr`` among them.
        search: the values tried for each setting, one setting after the other in this order: the
            best value of one is kept while the next is tried (so γ comes before α).
        prior: whether the last bias starts at the rate of positives, not at 0.
    """

    name: str
    make: Callable[..., LossFunction]
    start: Mapping[str, float]
    search: Mapping[str, Sequence[float]]
    prior: bool = True

    def trial(self, settings: Settings) -> Trial:
        """One way to train."""
        own = {key: value for key, value in settings.items() if key != "lr"}
        return Trial(self.make(**own), settings["lr"], self.prior)


@dataclass(frozen=True)
class Row:
    """What became of one loss.

    Attributes:
        name: of the loss.
        settings: chosen on validation data.
        num_trials: how many settings were tried.
        scores: metric → its values, one per seed.
    """

    name: str
    settings: Settings
    num_trials: int
    scores: dict[str, list[float]]


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Area under the precision-recall curve as the sum of ``(R_i - R_{i-1}) P_i``.

    Args:
        scores: ``(N,)``; equal scores are one threshold.
        labels: ``(N,)`` of 0 and 1.
    """
    precision, recall = precision_recall(scores, labels)
    step = torch.diff(recall, prepend=recall.new_zeros(1))
    return float((step * precision).sum())


def recall_at_precision(scores: Tensor, labels: Tensor, precision: float) -> float:
    """The highest recall of any threshold whose precision is at least ``precision``, or 0."""
    reached, recall = precision_recall(scores, labels)
    good = recall[reached >= precision]
    return float(good.max()) if len(good) else 0.0


def precision_recall(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall ``(T,)`` at each of the T different scores, from the highest down."""
    order = scores.argsort(descending=True)
    ranked, hits = scores[order], labels[order].double()
    last_of_ties = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])
    found = hits.cumsum(0)[last_of_ties]
    taken = torch.arange(1, len(scores) + 1, dtype=torch.float64)[last_of_ties]
    return found / taken, found / hits.sum()


def tune(candidate: Candidate, validate: Callable[[Trial], float]) -> tuple[Settings, int]:
    """The settings that ``validate`` gives the highest score, and how many were tried."""
    best = dict(candidate.start)
    tried: dict[tuple[float, ...], float] = {}

    def score(settings: Settings) -> float:
        key = tuple(settings.values())
        if key not in tried:
            tried[key] = validate(candidate.trial(settings))
        return tried[key]

    for name, values in candidate.search.items():
        best = max(({**best, name: value} for value in values), key=score)
    return best, len(tried)


def compare(
    candidates: Sequence[Candidate],
    validate: Callable[[Trial], float],
    test: Callable[[Trial, int], dict[str, float]],
    num_seeds: int,
) -> list[Row]:
    """Tune every loss by ``validate(trial)``, then measure it by ``test(trial, seed)``."""
    rows = []
    for candidate in candidates:
        settings, num_trials = tune(candidate, validate)
        outcomes = [test(candidate.trial(settings), seed) for seed in range(num_seeds)]
        scores = {metric: [outcome[metric] for outcome in outcomes] for metric in outcomes[0]}
        rows.append(Row(candidate.name, settings, num_trials, scores))
        print(f"{candidate.name}: {settings} after {num_trials} trials", flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: mean ± standard deviation over the seeds; wins are counted seed by seed.

    The last column compares the first metric with that of the first row on the same seeds.
    """
    metrics = list(rows[0].scores)
    baseline = rows[0].scores[metrics[0]]
    lines = [
        f"| loss | chosen | {' | '.join(metrics)} | {metrics[0]} against {rows[0].name} |",
        f"|---|---|{'---|' * len(metrics)}---|",
    ]
    for row in rows:
        chosen = ", ".join(f"{key} {value:g}" for key, value in row.settings.items())
        cells = [mean_and_deviation(row.scores[metric]) for metric in metrics]
        gains = [ours - base for ours, base in zip(row.scores[metrics[0]], baseline, strict=True)]
        wins = sum(gain > 0 for gain in gains)
        against = f"{mean_and_deviation(gains, sign='+')}, {wins} of {len(gains)} seeds"
        cells.append("" if row is rows[0] else against)
        lines.append(f"| {row.name} | {chosen} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_and_deviation(values: Sequence[float], sign: str = "") -> str:
    """``0.512 ± 0.010`` (the sample's standard deviation, 0 of a single value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.3f} ± {deviation:.3f}"


def arguments(description: str | None) -> argparse.Namespace:
    """``--seeds``, ``--smoke`` and ``--json``, which both examples take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds are tested")
    parser.add_argument("--smoke", action="store_true", help="tiny data and budget: does it run?")
    parser.add_argument("--json", type=Path, help="where the numbers are written")
    return parser.parse_args()


def report(rows: Sequence[Row], started: float, path: Path | None) -> None:
    """Print the table and the time since ``started``; write the numbers to ``path``."""
    wall, busy = time.perf_counter() - started, time.process_time()
    print(f"\n{table(rows)}\n\n{wall:.0f} s by the clock, {busy:.0f} s of one core")
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_rows(path: Path) -> list[Row]:
    """The rows that `report` wrote."""
    return [Row(**row) for row in json.loads(path.read_text())]
