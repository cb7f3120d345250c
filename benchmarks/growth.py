"""How cost grows: time and memory against the size of what is worked on, with the exponent.

    python benchmarks/growth.py                  # a table; --json prints one list of rows
    python benchmarks/growth.py --only scoring opening
    python benchmarks/growth.py --quick          # small sizes, to see that all of them run
    python benchmarks/growth.py --write          # keep the result: a page and a picture

Every point is measured in a process of its own, that has done the smallest point before, with one
thread. Seconds are the process's time on a core, which other work on the machine does not change:
the median of some repeats. Megabytes are the most that it held beyond what it held before the input
was made: the input and, of a network, the weights are in it. An exponent is the slope of a line
through the logarithms, by least squares over the larger half of the values, and at least three of
them: 1 is linear.

Where processes train together it is the sum over them, per step. A wait takes no time on a core, so
what is seen is what they do twice, and what it takes to talk; the same shares, each by itself, are
the first of the two. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from assignment import targets_of
from comparisons import machine, parse, parser_of
from inference import nano_runtime
from open_large_set import generate, own_bytes, worker_growth
from postprocess import anchors_of, predictions_of
from scoring import make_detections, make_ground_truth, score_with_ours
from torchvision_detectors import CPU, make_nano
from train_step import batch_of, our_step

sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks.__main__ import name_of
from retina.datasets.formats.coco import CocoConfig
from retina.devices import pick_precision
from retina.distributed import process_group
from retina.geometry.box_coders import DeltasConfig
from retina.instruments.figures import new_figure, write_png
from retina.modeling.inference_form import usual_form
from retina.modeling.postprocess import PostprocessConfig
from retina.objective.assignment.assigner import AssignerConfig
from retina.objective.assignment.atss import ATSSConfig
from retina.objective.assignment.max_iou import MaxIoUConfig
from retina.structures import BatchedTargets

HERE = Path(__file__).resolve().parent
T = TypeVar("T")
Work = Callable[[], object]
Make = Callable[[int], Work]
"""Makes the input of this size, and gives what is measured with it."""

FORK = multiprocessing.get_context("fork")
ENOUGH = 4.0
"""Seconds after which a point is not repeated any more."""
MEGABYTE = 1e6
LEAST = 0.1
"""Megabytes; less cannot be told."""
BOXES = 3
"""Of an image of the data set that is opened."""
CLASSES = (10, 40, 80, 160, 320, 640, 1203)
OBJECTS = (1, 5, 20, 100, 300, 1000, 2000)
GLOBAL_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        num_rounds: the most repeats of a point.
        num_points: how many of each range, the smallest; None for all.
    """

    num_rounds: int
    num_points: int | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A curve.

    Attributes:
        what: was done.
        against: what the values count.
        values: the sizes, growing.
        seconds: at each of them; None where only memory is looked at.
        megabytes: at each of them.
        exponent_time: of the larger half.
        exponent_memory: of the larger half.
    """

    what: str
    against: str
    values: list[int]
    seconds: list[float] | None
    megabytes: list[float]
    exponent_time: float | None
    exponent_memory: float


def row(
    what: str,
    against: str,
    values: Sequence[int],
    seconds: Sequence[float] | None,
    megabytes: Sequence[float],
) -> Row:
    """A curve with its exponents."""
    held = [max(one, LEAST) for one in megabytes]
    return Row(
        what=what,
        against=against,
        values=list(values),
        seconds=None if seconds is None else [float(f"{one:.4g}") for one in seconds],
        megabytes=[round(one, 1) for one in held],
        exponent_time=None if seconds is None else exponent(values, seconds),
        exponent_memory=exponent(values, held),
    )


def exponent(values: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the larger half of the points, at least three, in logarithms."""
    half = slice(-max(3, math.ceil(len(values) / 2)), None)
    return round(float(np.polyfit(np.log(values[half]), np.log(costs[half]), 1)[0]), 2)


def alone(function: Callable[..., T], *arguments: object) -> T:
    """What the function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return pool.submit(function, *arguments).result()


def forget() -> int:
    """Give free memory back, and start to look for the peak; how much is held, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return own_bytes("Rss")


def peak_bytes() -> int:
    """The most that this process has held since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def seconds_of(work: Work) -> float:
    """Time on a core."""
    began = time.process_time()
    work()
    return time.process_time() - began


def point(make: Make, value: int, smallest: int, rounds: int) -> tuple[float, float]:
    """Seconds and megabytes of one size."""
    make(smallest)()
    before = forget()
    work = make(value)
    forget()
    seconds: list[float] = []
    while not seconds or (len(seconds) < rounds and sum(seconds) < ENOUGH):
        seconds.append(seconds_of(work))
    return statistics.median(seconds), (peak_bytes() - before) / MEGABYTE


def curve(
    what: str, against: str, make: Make, points: Mapping[int, int] | Sequence[int], effort: Effort
) -> Row:
    """Measure all sizes.

    Args:
        what: see `Row`.
        against: see `Row`.
        make: what is measured.
        points: the values; where ``make`` wants other numbers, these by value.
        effort: how many points and rounds.
    """
    pairs = points.items() if isinstance(points, Mapping) else zip(points, points, strict=True)
    sizes = dict(list(pairs)[: effort.num_points])
    smallest = next(iter(sizes.values()))
    rounds = effort.num_rounds
    found = [alone(point, make, size, smallest, rounds) for size in sizes.values()]
    return row(what, against, list(sizes), *zip(*found, strict=True))


def varied(function: Callable[..., Work], name: str, value: int, **fixed: object) -> Work:
    """The function's work with this value of the argument of that name: a `Make` for `partial`."""
    return function(**fixed, **{name: value})


def step_of(*, size: int = 256, batch: int = 2, classes: int = 10, objects: int = 7) -> Work:
    """A step of training."""
    _, config, detector = make_nano(classes, size)
    images, targets = batch_of(size, batch, num_objects=objects, num_classes=classes)
    return our_step(config, detector, images, targets, pick_precision("auto", CPU))


def detection_of(*, size: int = 256, batch: int = 1, classes: int = 10) -> Work:
    """From pictures to detections."""
    _, config, detector = make_nano(classes, size)
    precision = pick_precision("auto", CPU)
    runtime = nano_runtime(config, detector, classes, usual_form(precision), precision)
    images, _ = batch_of(size, batch)
    return partial(runtime.detect, images)


def assignment_of(*, config: AssignerConfig, size: int = 800, objects: int = 60) -> Work:
    """Which anchor answers for which object of one image."""
    anchors, _ = anchors_of((size, size))
    targets = BatchedTargets.from_targets([targets_of((size, size), objects)])
    return partial(config.build(), anchors, targets)


def postprocess_of(classes: int) -> Work:
    """From the network's output for one image to detections."""
    size = (400, 667)
    anchors, shapes = anchors_of(size)
    predictions = predictions_of(anchors, shapes, 30, classes)
    postprocess = PostprocessConfig().build(DeltasConfig().build())
    return partial(postprocess, predictions, anchors, [size])


def scoring_of(num_images: int) -> Work:
    """From detections, a hundred of each image, to COCO's numbers."""
    rng = np.random.default_rng(0)
    truth = make_ground_truth(rng, num_images)
    return partial(score_with_ours, truth, make_detections(rng, truth, 100))


def squares(*sides: int) -> dict[int, int]:
    """Sides by the pixels of the square."""
    return {side**2: side for side in sides}


def training(effort: Effort) -> list[Row]:
    """A step, by two images of 256 pixels unless these are what grows."""
    what = "training step"
    sides = squares(64, 96, 128, 192, 256, 384, 512, 768)
    return [
        curve(what, "pixels of an image", partial(varied, step_of, "size"), sides, effort),
        curve(what, "images", partial(varied, step_of, "batch"), (1, 2, 4, 8, 16, 32), effort),
        curve(what, "classes", partial(varied, step_of, "classes"), CLASSES, effort),
        curve(what, "objects of an image", partial(varied, step_of, "objects"), OBJECTS, effort),
    ]


def inference(effort: Effort) -> list[Row]:
    """The same network, from pictures to detections."""
    what = "inference"
    sides = squares(64, 128, 192, 256, 384, 512, 768, 1024)
    return [
        curve(what, "pixels of an image", partial(varied, detection_of, "size"), sides, effort),
        curve(what, "images", partial(varied, detection_of, "batch"), (1, 2, 4, 8, 16, 32), effort),
        curve(what, "classes", partial(varied, detection_of, "classes"), CLASSES, effort),
    ]


def assignment(effort: Effort) -> list[Row]:
    """Sixty objects of an image, or 120,000 anchors."""
    sides = (128, 256, 384, 512, 768, 1024, 1536, 2048)
    anchors = {len(anchors_of((side, side))[0]): side for side in sides}
    rows = []
    for config in (MaxIoUConfig(), ATSSConfig()):
        make, what = partial(varied, assignment_of, config=config), f"assignment, {config.kind}"
        rows += [
            curve(what, "anchors", partial(make, "size"), anchors, effort),
            curve(what, "objects", partial(make, "objects"), OBJECTS, effort),
        ]
    return rows


def postprocess(effort: Effort) -> list[Row]:
    """Of 50,000 anchors."""
    return [curve("postprocess", "classes", postprocess_of, CLASSES, effort)]


def scoring(effort: Effort) -> list[Row]:
    """COCO's numbers."""
    detections = {100 * images: images for images in (100, 300, 1000, 3000, 10_000)}
    return [curve("scoring", "detections", scoring_of, detections, effort)]


def opening(effort: Effort) -> list[Row]:
    """A data set of COCO: what it takes, what stays, and what a worker that is forked copies."""
    counts = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)[: effort.num_points]
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), count, BOXES)
            found.append(alone(opened, Path(folder), count))
    seconds, peak, stays, own = map(list, zip(*found, strict=True))
    return [
        row("opening a data set", "images", counts, seconds, peak),
        row("an open data set", "images", counts, None, stays),
        row("what a worker copies of it", "images", counts, None, own),
    ]


def opened(folder: Path, count: int) -> tuple[float, float, float, float]:
    """Seconds and peak of opening the set, what it holds then, and what a worker makes its own."""
    before = forget()
    began = time.process_time()
    dataset = CocoConfig(images=folder / "images", annotations=folder / "annotations.json").build()
    seconds, peak = time.process_time() - began, peak_bytes() - before
    stays = forget() - before
    own = worker_growth(dataset, count)
    return seconds, peak / MEGABYTE, stays / MEGABYTE, own / MEGABYTE


def processes(effort: Effort) -> list[Row]:
    """A step of eight images that processes share, and their shares without the others."""
    counts = (1, 2, 4, 8)[: effort.num_points]
    apart, together = [], []
    for count in counts:
        size = GLOBAL_BATCH // count
        make = partial(varied, step_of, "batch")
        seconds, megabytes = alone(point, make, size, size, effort.num_rounds)
        apart.append((count * seconds, count * megabytes))
        together.append(shared(count, effort.num_rounds))
    return [
        row("shares of a step, each by itself", "processes", counts, *zip(*apart, strict=True)),
        row("training step, shared", "processes", counts, *zip(*together, strict=True)),
    ]


def shared(count: int, num_rounds: int) -> tuple[float, float]:
    """Seconds and megabytes of a step, summed over processes that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    work = partial(share, count, port, num_rounds)
    with ProcessPoolExecutor(count, mp_context=FORK) as pool:
        seconds, megabytes = zip(*pool.map(work, range(count)), strict=True)
    return sum(seconds), sum(megabytes)


def share(count: int, port: int, num_rounds: int, rank: int) -> tuple[float, float]:
    """What one of them takes."""
    if count > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"WORLD_SIZE": str(count), "RANK": str(rank)}
    batch = GLOBAL_BATCH // count
    step_of(batch=batch)()
    before = forget()
    with process_group("cpu", timeout_minutes=5):
        step = step_of(batch=batch)
        forget()
        step()
        seconds = statistics.median(seconds_of(step) for _ in range(num_rounds))
        return seconds, (peak_bytes() - before) / MEGABYTE


AXES: Mapping[str, Callable[[Effort], list[Row]]] = {
    function.__name__: function
    for function in (training, inference, assignment, postprocess, scoring, opening, processes)
}


def line_of(one: Row) -> str:
    """A line of a table in Markdown."""
    times = "–" if one.seconds is None else ", ".join(f"{value:.3g}" for value in one.seconds)
    held = ", ".join(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in one.megabytes)
    values = ", ".join(f"{value:,}".replace(",", " ") for value in one.values)
    slope = "–" if one.exponent_time is None else f"**{one.exponent_time:.2f}**"
    return (
        f"| {one.what} | {one.against} | {slope} | **{one.exponent_memory:.2f}** "
        f"| {values} | {times} | {held} |"
    )


HEAD = (
    "| what | against | exponent of time | of memory | values | seconds | megabytes |\n"
    "|---|---|---|---|---|---|---|"
)


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel for each curve: seconds and megabytes, as multiples of the first point."""
    columns = 4
    height = math.ceil(len(rows) / columns)
    figure = new_figure(3.2 * columns, 2.7 * height)
    for number, one in enumerate(rows, start=1):
        axes = figure.add_subplot(height, columns, number, xscale="log", yscale="log")
        ends = [1, one.values[-1] / one.values[0]]
        axes.plot([one.values[0], one.values[-1]], ends, color="0.75", label="linear")
        if one.seconds is not None:
            axes.plot(one.values, np.divide(one.seconds, one.seconds[0]), "o-", label="time")
        axes.plot(one.values, np.divide(one.megabytes, one.megabytes[0]), "s--", label="memory")
        axes.set_title(one.what, fontsize=9)
        axes.set_xlabel(one.against, fontsize=8)
        axes.tick_params(labelsize=7)
        if ends[1] < 20:  # too few powers of ten for an axis
            axes.set_xticks(one.values, list(map(str, one.values)))
            axes.set_yticks([1, 2, 5], ["1", "2", "5"])
            axes.tick_params(which="minor", labelbottom=False, labelleft=False)
        axes.legend(fontsize=7)
    write_png(figure, path)


def write(rows: Sequence[Row]) -> None:
    """Keep the result beside this program: the page and its picture."""
    about = machine("hotcoco")
    name = (
        f"growth_{name_of({key: str(value) for key, value in about.items()}, os.cpu_count() or 1)}"
    )
    versions = ", ".join(f"{key} {value}" for key, value in about.items())
    how = (__doc__ or "").split("\n\n", 2)[2]
    lines = [HEAD, *map(line_of, rows)]
    (HERE / f"{name}.md").write_text(
        f"# How cost grows\n\n    python benchmarks/growth.py --write\n\n"
        f"Measured on: {versions}.\n\n{how}\n![each curve, as multiples of its first point]"
        f"({name}.png)\n\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )
    draw(rows, HERE / f"{name}.png")


def main() -> None:
    """Measure, and print or keep."""
    parser = parser_of(__doc__, rounds=7)
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="keep the result: page and picture")
    options = parse(parser)
    if options.quick and options.write:
        parser.error("--write is for real sizes: leave --quick away")
    torch.set_num_threads(1)
    os.environ["RAYON_NUM_THREADS"] = "1"  # of hotcoco, not yet started
    effort = Effort(num_rounds=options.rounds, num_points=3 if options.quick else None)
    if not options.json:
        print(HEAD)
    rows = []
    for name in options.only:
        for one in AXES[name](effort):
            rows.append(one)
            if not options.json:
                print(line_of(one), flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in rows], indent=1))
    if options.write:
        write(rows)


if __name__ == "__main__":
    main()
