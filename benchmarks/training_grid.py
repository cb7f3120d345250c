"""Trains a grid of configs over several seeds, a few at a time; what is done is not done again.

Every run is a normal ``retina train`` in a process and run folder of its own, on one thread, so
that several side by side do not disturb each other. A run that was stopped is resumed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """One row of the table: a name, and what it changes in the config."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What one run came to; ``metrics`` is None where it diverged."""

    metrics: dict[str, float] | None
    reason: str = ""


def train_grid(
    config: Path, cells: Iterable[Cell], *, seeds: Sequence[int], folder: Path, jobs: int
) -> dict[str, list[Outcome]]:
    """The outcomes of every cell, one for each seed."""
    grid = [(cell, seed) for seed in seeds for cell in cells]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda pair: _train(config, *pair, folder=folder), grid))
    table: dict[str, list[Outcome]] = {}
    for (cell, _), outcome in zip(grid, outcomes, strict=True):
        table.setdefault(cell.name, []).append(outcome)
    return table


def _train(config: Path, cell: Cell, seed: int, *, folder: Path) -> Outcome:
    run = folder / cell.name / f"seed{seed}"
    record = run / "outcome.json"
    asked = {"config": config.read_text(), "overrides": list(cell.overrides)}
    if record.exists() and json.loads(record.read_text())["asked"] != asked:
        raise SystemExit(
            f"{run} holds the outcome of another config or cell; choose a new --folder"
        )
    if not record.exists():
        command = [sys.executable, "-m", "retina", "train", str(config), *cell.overrides]
        command += [f"seed={seed}", f"output_dir={run}", "--resume"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        diverged = done.returncode == 3 and "not finite" in done.stderr
        if done.returncode != 0 and not diverged:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        run.mkdir(parents=True, exist_ok=True)
        metrics = _last_validation(run) if done.returncode == 0 else None
        reason = done.stderr.strip() if diverged else ""
        record.write_text(json.dumps({"asked": asked, "metrics": metrics, "reason": reason}))
        print(f"{cell.name} seed {seed}: {metrics['AP']:.4f}" if metrics else reason, flush=True)
    outcome = json.loads(record.read_text())
    return Outcome(outcome["metrics"], outcome["reason"])


def _last_validation(run: Path) -> dict[str, float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] == "validation"][-1]


def mean_and_spread(outcomes: Sequence[Outcome], key: str) -> str:
    """``mean ± standard deviation (n)`` of one metric, or how many runs diverged."""
    values = [outcome.metrics[key] for outcome in outcomes if outcome.metrics is not None]
    if len(values) < len(outcomes):
        return f"{len(outcomes) - len(values)} of {len(outcomes)} diverged"
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"
