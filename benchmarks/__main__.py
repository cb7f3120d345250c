"""Every hot path beside its peers: runs the programs one after the other, each in its own process.

    python -m benchmarks                # a table; --json prints one list of rows
    python -m benchmarks --only loader scoring
    python -m benchmarks --quick        # small sizes, to see that all of them run
    python -m benchmarks --write        # keep the result, dated, and make docs/benchmarks.md
    python -m benchmarks --pages-of benchmarks/suite_MACHINE_YYYYMM.json    # make the pages again

A program that fails is named with its last line, the others go on, and the exit code is 1. The
machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparisons import table

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
PROGRAMS = (
    "train_step",
    "inference",
    "postprocess",
    "assignment",
    "focal_loss",
    "loader",
    "scoring",
    "start_up",
)

Rows = Sequence[Mapping[str, Any]]
"""Each as `comparisons.Row` has it."""


class ProgramError(Exception):
    """A program has not given its rows; the message is its last line."""


def rows_of(program: str, options: Sequence[str]) -> Rows:
    """What a program of this folder measures.

    Raises:
        ProgramError: it failed.
    """
    done = subprocess.run(
        [sys.executable, HERE / f"{program}.py", "--json", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, _search_path()))},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        raise ProgramError(lines[-1] if lines else f"ended with {done.returncode}")
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    try:
        rows: Rows = json.loads(done.stdout)
    except ValueError as error:
        raise ProgramError(f"its rows are no JSON: {error}") from None
    return rows


def _search_path() -> tuple[str, str]:
    """This checkout first, whichever is installed."""
    return str(HERE.parent), os.environ.get("PYTHONPATH", "")


def machine_of(rows: Rows) -> dict[str, str]:
    """What the rows were measured on and with; where programs differ, all that they say."""
    told: dict[str, dict[str, None]] = {}
    for one in rows:
        for key, value in one["machine"].items():
            told.setdefault(key, {})[str(value)] = None
    return {key: " or ".join(values) for key, values in told.items()}


def name_of(machine: Mapping[str, str], num_cores: int) -> str:
    """A machine and a month, as in the names of results: ``2core-xeon_202611``."""
    words = re.findall(r"[a-z][a-z0-9]*", re.sub(r"\(\w+\)", "", machine["processor"].lower()))
    words = [word for word in words if word not in ("intel", "amd", "apple", "th", "gen")]
    parts = [f"{num_cores}core", *words[:1]]
    if "gpu" in machine:
        parts.append(machine["gpu"].lower().split()[-1])
    return f"{'-'.join(parts)}_{machine['date'][:7].replace('-', '')}"


def result_page(rows: Rows) -> str:
    """The page of a measurement."""
    return f"# Every hot path beside its peers\n\n{_body(rows)}"


def docs_page(rows: Rows, result: str) -> str:
    """The page of the documentation.

    Args:
        rows: of all programs.
        result: the name of the measurement's file, without suffix.
    """
    return f"""# Benchmarks

How long Retina takes for what a training or a detector does all day, beside what else does the
same. Each pair runs on the same machine in the same minutes, by turns, and the outputs of both are
compared in that run. **ratio** is how many times as long the peer took, or how many times as much
memory: above 1 ours is faster, or smaller. It is taken in each round; the table has the median, the
lowest and the highest. **equal** says whether what was compared agreed within its bounds.

{_body(rows)}
The same numbers, each with its versions: [{result}.json](../benchmarks/{result}.json). What a
program does stands at its head: [benchmarks/](../benchmarks/README.md).
"""


def _body(rows: Rows) -> str:
    machine = machine_of(rows)
    versions = ", ".join(f"{key} {value}" for key, value in machine.items())
    return f"    python -m benchmarks --write\n\nMeasured on: {versions}.\n\n{table(rows)}\n"


def write(rows: Rows, name: str, *, results: Path = HERE, docs: Path = DOCS) -> None:
    """Keep a measurement as JSON, and make its pages.

    Args:
        rows: of all programs.
        name: of the result, as `name_of` gives it.
        results: the folder of its page and its JSON.
        docs: the folder of the page of the documentation.
    """
    result = f"suite_{name}"
    (results / f"{result}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (results / f"{result}.md").write_text(result_page(rows), encoding="utf-8")
    (docs / "benchmarks.md").write_text(docs_page(rows, result), encoding="utf-8")


def main() -> int:
    """Run the programs; the exit code is 1 where one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON list of rows, nothing else")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, metavar="NAME")
    parser.add_argument("--rounds", type=int, help="that are timed; by default as many as each has")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto takes the GPU if any")
    parser.add_argument("--write", action="store_true", help="keep the result and make its pages")
    parser.add_argument("--pages-of", type=Path, metavar="JSON", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write is for real sizes: leave --quick away")
    if arguments.write and arguments.only is not PROGRAMS:
        parser.error("--write is for all programs: leave --only away")
    if arguments.pages_of:
        kept: Rows = json.loads(arguments.pages_of.read_text(encoding="utf-8"))
        write(kept, arguments.pages_of.stem.removeprefix("suite_"))
        return 0
    rounds = arguments.rounds or (2 if arguments.quick else None)
    options = ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]
    options += ["--rounds", str(rounds)] if rounds else []
    rows: list[Mapping[str, Any]] = []
    failed = False
    for program in arguments.only:
        print(f"{program} …", file=sys.stderr, flush=True)
        try:
            rows += rows_of(program, options)
        except ProgramError as error:
            print(f"{program} failed: {error}", file=sys.stderr)
            failed = True
    if arguments.write and not failed:
        write(rows, name_of(machine_of(rows), os.cpu_count() or 1))
    print(json.dumps(rows, indent=1) if arguments.json else table(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
