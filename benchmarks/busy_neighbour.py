"""What another busy process costs a training of two threads, by how OpenMP's threads wait.

    python benchmarks/busy_neighbour.py [--rounds 3] [--seconds 8]

A thread that has done its part of a convolution waits for the others: by default it spins, which is
quick where every thread has a core, and steals time where one has not. Each row is a process of its
own that takes training steps of `configs/nano.yaml` for some seconds, alone and beside a process
that computes on one thread; the rows take turns. ``alone`` and ``beside`` are images a second in
the median round, the ratio is that to the first row in the same round: what the setting loses
without a neighbour, and what it gains with one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from comparisons import machine

HERE = Path(__file__).resolve().parent
SETTINGS: dict[str, dict[str, str]] = {
    "as PyTorch has it": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
}
NEIGHBOUR = """
import torch
torch.set_num_threads(1)
one = torch.randn(512, 512)
while True:
    one @ one
"""


def steps(seconds: float) -> float:
    """Images a second of a training in this process."""
    from torchvision_detectors import CPU, make_nano
    from train_step import NUM_CLASSES, batch_of, our_step

    from retina.devices import pick_precision

    _, config, detector = make_nano(NUM_CLASSES, 256)
    step = our_step(config, detector, *batch_of(256, 8), pick_precision("auto", CPU))
    for _ in range(3):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 8
    return count / (time.perf_counter() - began)


def measure(setting: dict[str, str], seconds: float) -> float:
    """The same in a process with these variables."""
    command = [sys.executable, str(HERE / "busy_neighbour.py"), "--steps", str(seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | setting
    )
    return float(done.stdout)


@contextlib.contextmanager
def neighbour(is_there: bool) -> Iterator[None]:
    """A busy process for the ``with`` block, if it is wanted."""
    if not is_there:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        print(steps(options.steps))
        return
    found: dict[tuple[str, bool], list[float]] = {}
    for number in range(options.rounds):
        for is_there in (False, True):
            names = list(SETTINGS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                with neighbour(is_there):
                    rate = measure(SETTINGS[name], options.seconds)
                found.setdefault((name, is_there), []).append(rate)
    rows = []
    for name in SETTINGS:
        row: dict[str, object] = {"setting": name}
        for is_there, word in ((False, "alone"), (True, "beside")):
            own, first = found[name, is_there], found[next(iter(SETTINGS)), is_there]
            ratios = [one / other for one, other in zip(own, first, strict=True)]
            row[word] = round(statistics.median(own), 1)
            row[f"{word}_ratio"] = round(statistics.median(ratios), 2)
            row[f"{word}_ratio_min"] = round(min(ratios), 2)
            row[f"{word}_ratio_max"] = round(max(ratios), 2)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in machine().items()) + "\n")
    print("| setting | alone | ratio | beside a neighbour | ratio |\n|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[word]} | {row[f'{word}_ratio']} ({row[f'{word}_ratio_min']} – "
            f"{row[f'{word}_ratio_max']})"
            for word in ("alone", "beside")
        ]
        print(f"| {row['setting']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
