r"""Suppression by class: time and exactness, ours beside torchvision's `batched_nms`.

    python benchmarks/nms.py
    python benchmarks/nms.py --classes 1203 --boxes 5000 --image-size 100000

Contenders, all from boxes, scores and labels in host memory to the rows that stay, best first:

    ours, 100     retina.geometry.suppression.suppress, for the 100 best: what postprocessing asks
    ours, all     the same without a limit
    batched_nms   torchvision's: up to 1000 boxes one call, with the classes moved apart in float32,
                  above a loop over the classes
    loop          that loop for any number of boxes (`_batched_nms_vanilla`)

Boxes stand around places as a detector's do (about twenty each), or anywhere (`anywhere`). The
contenders take turns in one process on one thread, each round beginning with another; the clock is
the process's own, so that other work on the machine does not count, and the median is printed.
``wrong`` is the share of what `batched_nms` keeps or drops otherwise than the loop does, with every
box in one call as a GPU does it up to 25,000 boxes; ours is the loop's, or the program fails.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import boxes as box_ops

from retina.geometry.suppression import suppress

THRESHOLD = 0.5
Problem = tuple[Tensor, Tensor, Tensor]
"""Boxes ``(N, 4)``, scores ``(N,)`` and labels ``(N,)``."""

CONTENDERS: dict[str, Callable[[Problem], Tensor]] = {
    "ours, 100": lambda problem: suppress(*problem, THRESHOLD, limit=100),
    "ours, all": lambda problem: suppress(*problem, THRESHOLD, limit=len(problem[0])),
    "batched_nms": lambda problem: batched_nms(*problem, THRESHOLD),
    "loop": lambda problem: box_ops._batched_nms_vanilla(*problem, THRESHOLD),
}


def some_boxes(count: int, num_classes: int, size: float, *, anywhere: bool) -> Problem:
    """The same on every call."""
    generator = torch.Generator().manual_seed(count + num_classes)
    num_places = count if anywhere else max(1, count // 20)
    at = torch.randint(0, num_places, (count,), generator=generator)
    centers = torch.rand(num_places, 2, generator=generator)[at] * size
    sides = torch.rand(num_places, 2, generator=generator)[at] * 250 + 8
    labels = torch.randint(0, num_classes, (num_places,), generator=generator)[at]
    noise = torch.randn(2, count, 2, generator=generator)
    centers = centers + 0.1 * sides * noise[0]
    sides = sides * (1 + 0.1 * noise[1]).clamp(min=0.5)
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=1).clamp(0, size)
    return boxes, torch.rand(count, generator=generator), labels


def seconds_of(work: Callable[[], object]) -> float:
    """Of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def medians(problem: Problem, rounds: int) -> dict[str, float]:
    """Milliseconds; every contender has run once before the first round."""
    names = list(CONTENDERS)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds = seconds_of(lambda name=name: CONTENDERS[name](problem))
            if turn >= 0:
                times[name].append(seconds)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def share_of_wrong(problem: Problem) -> float:
    """Of the boxes that the loop keeps: how many the offsets keep beside them, or do not keep."""
    exact = set(CONTENDERS["loop"](problem).tolist())
    # As sets: the loop sorts what is left once more, and equal scores as they come.
    assert set(CONTENDERS["ours, all"](problem).tolist()) == exact
    moved = set(box_ops._batched_nms_coordinate_trick(*problem, THRESHOLD).tolist())
    return len(exact ^ moved) / len(exact)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 80, 1203])
    parser.add_argument("--boxes", type=int, nargs="+", default=[300, 1000, 2000, 5000])
    parser.add_argument("--image-size", type=float, default=1333)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}; milliseconds, median")
    print(f"{'':24}" + "".join(f"{name:>13}" for name in CONTENDERS) + f"{'wrong':>9}")
    for anywhere in (False, True):
        for num_classes in arguments.classes:
            for count in arguments.boxes:
                problem = some_boxes(count, num_classes, arguments.image_size, anywhere=anywhere)
                wrong = share_of_wrong(problem)
                found = medians(problem, arguments.rounds)
                name = f"K {num_classes:4}, N {count}{' anywhere' if anywhere else ''}"
                columns = "".join(f"{value:13.2f}" for value in found.values())
                print(f"{name:24}{columns}{wrong:9.2%}")


if __name__ == "__main__":
    main()
