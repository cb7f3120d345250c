"""Check that this project is correct on a GPU: one JSON, one table, one exit code.

    scripts/gpu_check.sh [--data DIR] [--output DIR] [--only TEXT] [--benchmarks] [--cpu]

Every check of tests/cuda runs, also after one has failed. They run in a process apart, which is
replaced where one hangs, crashes or breaks the device: nothing else would run after that.
Exit codes: 0 all passed or were skipped, 1 a check failed, 2 wrong arguments, 3 there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

STARTING_SECONDS = 90.0
"""For a process to import torch and find the device."""


@dataclass(frozen=True)
class Result:
    """How a check ended: ``passed``, ``failed`` or ``skipped``."""

    name: str
    status: str
    seconds: float
    detail: str


def main() -> int:
    """Run all checks; returns the exit code."""
    arguments = parse(sys.argv[1:])
    if arguments.worker:
        work(arguments)
        return 0
    import torch

    if not arguments.cpu and not torch.cuda.is_available():
        print(
            "error: torch sees no GPU here; --cpu tries out what can run without", file=sys.stderr
        )
        return 3
    arguments.output.mkdir(parents=True, exist_ok=True)
    facts = machine(cpu=arguments.cpu)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    started = time.monotonic()
    results = run_all(arguments)
    if not results:
        print(f"error: no check has '{arguments.only}' in its name", file=sys.stderr)
        return 2
    seconds = round(time.monotonic() - started, 1)
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("passed", "failed", "skipped")
    }
    benchmarks = run_benchmarks(arguments) if arguments.benchmarks else []
    report = {
        "machine": facts,
        "seconds": seconds,
        **counts,
        "checks": [asdict(result) for result in results],
        "benchmarks": benchmarks,
    }
    path = arguments.output / "gpu_check.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print_table(results)
    if benchmarks:
        from benchmarks.comparisons import table

        print(table(benchmarks) + "\n")
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{total} in {seconds:.0f} s; {path}")
    return 1 if counts["failed"] or not counts["passed"] else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check.sh", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="a copy of BCCD; else data is generated")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_check"), help="for the JSON")
    parser.add_argument("--only", default="", help="only checks with this text in their name")
    parser.add_argument(
        "--benchmarks", action="store_true", help="then time the hot paths beside their peers"
    )
    parser.add_argument("--cpu", action="store_true", help="try out what can run without a GPU")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.data is not None and not (parsed.data / "JPEGImages").is_dir():
        parser.error(f"--data: {parsed.data} has no folder JPEGImages")
    return parsed


BENCHMARKS = ("train_step", "inference", "postprocess", "assignment", "focal_loss")
"""What a GPU is for; the others measure the processor."""
BENCHMARK_SECONDS = 300.0


def run_benchmarks(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of ``python -m benchmarks`` on the device; small ones in a trial without it."""
    device = ["--device", "cpu", "--quick"] if arguments.cpu else ["--device", "cuda"]
    command = [sys.executable, "-m", "benchmarks", "--json", *device, "--only", *BENCHMARKS]
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=BENCHMARK_SECONDS,
            check=False,
        )
        rows: list[dict[str, Any]] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        print(f"the benchmarks gave nothing: {error}", file=sys.stderr)
        return []
    return rows


def machine(*, cpu: bool) -> dict[str, str]:
    """What the checks ran on, and with."""
    import torch

    facts = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "triton", "numpy"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "missing"
    facts["cuda"] = str(torch.version.cuda)
    if cpu:
        return {"device": "cpu (a trial of the checks, no GPU was checked)", **facts}
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    facts["cudnn"] = str(torch.backends.cudnn.version())
    return {
        "device": torch.cuda.get_device_name(),
        "capability": capability,
        "driver": _driver(),
        **facts,
    }


def _driver() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip() if done.stdout else "unknown"


# ---------------------------------------------------------------------------------------------
# The process that runs checks: it is told nothing, and writes a line of JSON for each event.
# ---------------------------------------------------------------------------------------------


def work(arguments: argparse.Namespace) -> None:
    """Run the checks that are listed in a file; report to the standard output.

    It ends early where a check leaves the device unusable.
    """
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed
    import torch

    from tests.cuda.check import Setting
    from tests.cuda.checks import CHECKS

    by_name = {check.name: check for check in CHECKS}
    device = torch.device("cpu") if arguments.cpu else torch.device("cuda", 0)
    for name in json.loads(arguments.worker.read_text()):
        print(json.dumps({"begins": name}), file=reports)
        started, status = time.monotonic(), "passed"
        folder = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        try:
            detail = by_name[name].run(Setting(device, folder, arguments.data))
            if not arguments.cpu:
                torch.cuda.synchronize()  # an error that comes late comes here
        except BaseException as error:
            traceback.print_exc()
            status, detail = "failed", f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        result = Result(name, status, round(time.monotonic() - started, 2), detail[:2000])
        print(json.dumps(asdict(result)), file=reports)
        if status == "failed" and not _is_usable(device):
            return


def _is_usable(device: Any) -> bool:
    """Whether the device still computes: an assertion on it breaks it for the whole process."""
    import torch

    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except RuntimeError:
        return False


# ---------------------------------------------------------------------------------------------
# The process that watches.
# ---------------------------------------------------------------------------------------------


def run_all(arguments: argparse.Namespace) -> list[Result]:
    """The results of all checks that were asked for, in their order."""
    try:
        from tests.cuda.checks import CHECKS
    except Exception as error:
        traceback.print_exc()
        return [Result("import of the checks", "failed", 0.0, f"{type(error).__name__}: {error}")]
    wanted = [check for check in CHECKS if arguments.only.lower() in check.name.lower()]
    skipped = {check.name for check in wanted if arguments.cpu and check.needs_gpu}
    results = {
        name: Result(name, "skipped", 0.0, "needs a GPU, or takes minutes on a CPU")
        for name in skipped
    }
    limits = {check.name: check.seconds for check in wanted if check.name not in skipped}
    results |= {result.name: result for result in run_processes(arguments, limits)}
    return [results[check.name] for check in wanted]


def run_processes(arguments: argparse.Namespace, limits: dict[str, float]) -> list[Result]:
    """The results of checks by their limits in seconds, in as many processes as it takes."""
    results: list[Result] = []
    while left := list(limits)[len(results) :]:
        for result in run_process(arguments, {name: limits[name] for name in left}):
            print(f"  {result.status:8s}{result.seconds:7.1f} s  {result.name}", flush=True)
            results.append(result)
    return results


def run_process(arguments: argparse.Namespace, limits: dict[str, float]) -> Iterator[Result]:
    """The results of one process as they come: of all checks, or up to where it was ended."""
    log = arguments.output / "gpu_check.log"
    with tempfile.TemporaryDirectory() as folder, log.open("a") as errors:
        listing = Path(folder) / "names.json"
        listing.write_text(json.dumps(list(limits)))
        worker = subprocess.Popen(
            worker_command(arguments, listing),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(cpu=arguments.cpu),
            start_new_session=True,  # so that its children can be ended with it
        )
        try:
            yield from _watched(_lines(worker), limits, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _watched(
    lines: queue.Queue[str | None], limits: dict[str, float], log: Path
) -> Iterator[Result]:
    """The results that a process reports, and a failure of the check that it does not come from."""
    left = list(limits)
    limit, started, has_failed = STARTING_SECONDS, time.monotonic(), False
    while left:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            detail = f"no end after {limit:.0f} s; see {log}"
            break
        if line is None:
            if has_failed:  # the device is broken, and no other check has begun
                return
            detail = f"its process crashed; see {log}"
            break
        event: dict[str, Any] = json.loads(line)
        if "begins" in event:
            limit, started, has_failed = limits[left[0]], time.monotonic(), False
            continue
        result = Result(**event)
        yield result
        left.remove(result.name)
        limit, started, has_failed = STARTING_SECONDS, time.monotonic(), result.status == "failed"
    else:
        return
    yield Result(left[0], "failed", round(time.monotonic() - started, 1), detail)


def worker_command(arguments: argparse.Namespace, listing: Path) -> list[str]:
    """The command of a process that runs the checks that are listed."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(listing)]
    if arguments.cpu:
        command.append("--cpu")
    if arguments.data is not None:
        command += ["--data", str(arguments.data.resolve())]
    return command


def environment(*, cpu: bool) -> dict[str, str]:
    """What the process is told about determinism, and the interpreter of Triton without a GPU."""
    variables = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONFAULTHANDLER": "1"}
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    if cpu:
        variables["TRITON_INTERPRET"] = "1"
    return variables


def _lines(worker: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What the process reports; None when it has ended."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def print_table(results: Sequence[Result]) -> None:
    """One line for each check."""
    width = max(len(result.name) for result in results)
    print(f"\n{'check':{width}s}  {'result':8s}{'seconds':>8s}  detail")
    for result in results:
        detail = " ".join(result.detail.split())[:100]
        print(f"{result.name:{width}s}  {result.status:8s}{result.seconds:8.1f}  {detail}")
    print()


if __name__ == "__main__":
    sys.exit(main())
