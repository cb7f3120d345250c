"""Ours beside a peer in one process, by turns: times, ratios, and what was equal."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from retina.devices import pick_device

OURS = "ours"
_PACKAGES = ("torch", "torchvision", "numpy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        name: what was done.
        peer: what did the same.
        ratio_median: how many times as long the peer took, in the middle round; a ratio of sizes
            where sizes were compared. Above 1 ours is faster, or smaller.
        ratio_min: in the worst round.
        ratio_max: in the best one.
        equal: whether both gave the same; only what was compared in this run is.
        compared: the numbers that say so, with their bounds.
        ours: milliseconds of ours in the middle round, or its size.
        theirs: the peer's.
        rounds: how many.
        setting: what was measured on.
    """

    name: str
    peer: str
    ratio_median: float
    ratio_min: float
    ratio_max: float
    equal: bool
    compared: Mapping[str, Any]
    ours: float
    theirs: float
    rounds: int
    setting: str
    machine: Mapping[str, Any] = field(default_factory=dict)


def machine(*packages: str) -> dict[str, Any]:
    """What the numbers hold for.

    Args:
        packages: of peers, whose versions are told, too.
    """
    told = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                told = line.partition(":")[2].strip()
                break
    here: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "processor": told,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        here["gpu"] = torch.cuda.get_device_name()
    for name in (*_PACKAGES, *packages):
        with suppress(metadata.PackageNotFoundError):
            here[name] = metadata.version(name)
    return here


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of each function in each round; every round begins with another one.

    Args:
        functions: what is timed, by name.
        rounds: that count.
        warm_up: rounds before them.
        clock: seconds; `time.process_time` does not see what other work does to one thread.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(warm_up + rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            began = clock()
            functions[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warm_up:
                times[name].append(1000 * (clock() - began))
    return times


def row(
    name: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    equal: bool,
    compared: Mapping[str, Any],
    setting: str,
    about: Mapping[str, Any],
) -> Row:
    """The comparison of two lists with one time for each round; arguments as in `Row`."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Row(
        name=name,
        peer=peer,
        ratio_median=round(statistics.median(ratios), 3),
        ratio_min=round(min(ratios), 3),
        ratio_max=round(max(ratios), 3),
        equal=equal,
        compared=dict(compared),
        ours=round(statistics.median(ours), 3),
        theirs=round(statistics.median(theirs), 3),
        rounds=len(ratios),
        setting=setting,
        machine=dict(about),
    )


def parser_of(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every program has; ``description`` is that of its module."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON list of rows, nothing else")
    parser.add_argument("--rounds", type=int, default=rounds, help="that are timed")
    parser.add_argument("--quick", action="store_true", help="small and few: to try the program")
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto takes the GPU if any")
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line and set the number of threads."""
    options = parser.parse_args()
    if options.quick:
        options.rounds = min(options.rounds, 2)
    options.device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def show(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        print(json.dumps([asdict(one) for one in rows], indent=1))
        return
    if rows:
        print(", ".join(f"{key} {value}" for key, value in rows[0].machine.items()) + "\n")
    print(table([asdict(one) for one in rows]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table in Markdown, which a terminal shows well enough."""
    lines = [
        "| what | peer | ratio | lowest – highest | ours | peer's | equal | compared | setting |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        compared = ", ".join(f"{key} {_short(value)}" for key, value in one["compared"].items())
        lines.append(
            f"| {one['name']} | {one['peer']} | **{one['ratio_median']:.2f}** | "
            f"{one['ratio_min']:.2f} – {one['ratio_max']:.2f} | {one['ours']:.4g} | "
            f"{one['theirs']:.4g} | {'yes' if one['equal'] else 'no'} | {compared} | "
            f"{one['setting']} |"
        )
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
