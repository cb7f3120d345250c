r"""Forward + backward of the focal loss: time and peak extra memory, side by side.

    python benchmarks/focal_loss.py                  # CPU, and the GPU too where there is one
    python benchmarks/focal_loss.py --device cuda
    python benchmarks/focal_loss.py --json      # ours beside torchvision and compiled, compared

On a CPU 4 × 50,000 × 80 logits in float32 on one thread, on a GPU 16 × 201,600 × 80 in bfloat16.
Contenders, all from class indices to the gradient of the logits, summed over everything:

    ours          sigmoid_focal_loss(logits, indices, reduction="sum"): the fast path
    torchvision   its sigmoid_focal_loss, and the target tensor as its RetinaNet makes it (zeros and
                  an indexed 1, cheaper than one_hot); under autocast on a GPU
    compiled      torch.compile of torchvision's formula and of the comparison that makes targets
    plain         our reference form, eager
    plain, comp.  the same under torch.compile
    in place      ours, the gradient over the logits (GPU only)

They take turns in one process, each round beginning with another; the ratio is taken within a
round, then its median and quartiles. With one CPU thread the clock is the process's own (user +
system, page faults included), so that other work on the machine does not count; else it is wall
time, and on a GPU its events. Memory is measured apart, each contender in a process of its own: on
a CPU the high-water mark of the resident set, reset after a warm-up call, over what was resident
before the measured call; on a GPU the allocator's peak. The gradient itself is 1.0 of the logits.
With ``--json`` loss and gradient are compared, too: relative to the peer's, the gradient by its
norm.

The C library hands large tensors back to the system at once, so on a CPU every temporary costs page
faults, of which torchvision's form has eleven times ours. To see the rest without them:

    GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592 \
        python benchmarks/focal_loss.py --no-memory
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from comparisons import OURS, Row, machine, parse, parser_of, row, show
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from retina.losses import focal_loss_sums, sigmoid_focal_loss

Contender = Callable[[Tensor, Tensor], Tensor]
"""Logits and class indices to the summed loss."""

ALPHA, GAMMA = 0.25, 2.0
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-2, 1e-2), torch.float16: (1e-2, 1e-2)}
"""How far loss and gradient may be apart: torchvision computes in the type of the logits."""


@dataclass(frozen=True)
class Problem:
    """What is measured on."""

    device: str
    dtype: torch.dtype
    shape: tuple[int, int, int]

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Logits around -4 as a detector's, 0.3 % foreground; the same on every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        images, anchors, num_classes = self.shape
        place = {"device": self.device, "generator": generator}
        logits = torch.randn(self.shape, dtype=torch.float32, **place).mul_(2).sub_(4)
        rows = (images, anchors)
        indices = torch.randint(0, num_classes, rows, **place)
        indices[torch.rand(rows, **place) > 0.003] = num_classes
        return logits.to(self.dtype), indices

    @property
    def logits_bytes(self) -> int:
        """Size of the logits."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def ours(logits: Tensor, indices: Tensor) -> Tensor:
    """The fast path."""
    return sigmoid_focal_loss(logits, indices, alpha=ALPHA, gamma=GAMMA, reduction="sum")


def in_place(logits: Tensor, indices: Tensor) -> Tensor:
    """The fast path, the gradient over the logits."""
    return focal_loss_sums(logits, indices, alpha=ALPHA, gamma=GAMMA, in_place=True).total


def torchvision_loss(logits: Tensor, indices: Tensor) -> Tensor:
    """As torchvision's RetinaNetClassificationHead.compute_loss, for the whole batch at once."""
    wanted = torch.zeros_like(logits)
    where = indices < logits.shape[-1]
    wanted[(*where.nonzero(as_tuple=True), indices[where])] = 1.0
    with torch.autocast(logits.device.type, torch.bfloat16, enabled=logits.is_cuda):
        return torchvision_focal_loss(logits, wanted, alpha=ALPHA, gamma=GAMMA, reduction="sum")


def formula(logits: Tensor, indices: Tensor) -> Tensor:
    """The formula of torchvision, written so that a compiler sees all of it."""
    classes = torch.arange(logits.shape[-1], device=logits.device)
    inputs = logits.float()
    targets = (indices.unsqueeze(-1) == classes).float()
    p = torch.sigmoid(inputs)
    cross_entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    return (alpha_t * cross_entropy * (1 - p_t) ** GAMMA).sum()


def plain(logits: Tensor, indices: Tensor) -> Tensor:
    """The reference form: elementwise values take it."""
    return sigmoid_focal_loss(logits, indices, alpha=ALPHA, gamma=GAMMA, reduction="none").sum()


def contenders(device: str) -> dict[str, Contender]:
    """By name; ours first, to which the ratios are."""
    found: dict[str, Contender] = {
        OURS: ours,
        "torchvision": torchvision_loss,
        "compiled": torch.compile(formula),
        "plain": plain,
        "plain, comp.": torch.compile(plain),
    }
    if device == "cuda":
        found["in place"] = in_place
    return found


def gradient_of(contender: Contender, logits: Tensor, indices: Tensor) -> Tensor:
    """Forward and backward; ``logits`` is what a network computed, not a leaf."""
    (gradient,) = torch.autograd.grad(contender(logits, indices), logits)
    return gradient


def seconds_of(work: Callable[[], object], device: str) -> float:
    """How long it takes."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    work()
    return clock() - begin


def measure_times(problem: Problem, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round; every contender has run twice before the first."""
    leaf, indices = problem.inputs()
    leaf.requires_grad_()
    losses = contenders(problem.device)
    target = torch.empty_like(leaf)

    def run(name: str) -> float:
        if name == "copy":
            return seconds_of(lambda: target.copy_(leaf.detach()), problem.device)
        # A view for in_place would let it write over the leaf.
        logits = leaf * 1 if name == "in place" else leaf.view_as(leaf)
        return seconds_of(lambda: gradient_of(losses[name], logits, indices), problem.device)

    turns = [*names, "copy"]
    for name in turns * 2:
        run(name)
    times: dict[str, list[float]] = {name: [] for name in turns}
    for index in range(rounds):
        first = index % len(turns)
        for name in turns[first:] + turns[:first]:
            times[name].append(run(name))
    return times


def resident_bytes(field: str) -> int:
    """A field of this process's memory in bytes: VmRSS, now, or VmHWM, the high-water mark."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status: peak memory is measured on Linux only")


def measure_memory(problem: Problem, name: str) -> float:
    """Peak memory beyond the inputs during one call, in sizes of the logits."""
    leaf, indices = problem.inputs()
    leaf.requires_grad_()
    contender = contenders(problem.device)[name]
    logits = leaf * 1 if name == "in place" else leaf.view_as(leaf)
    gradient_of(contender, logits, indices)  # compiles, and fills caches
    logits = leaf * 1 if name == "in place" else leaf.view_as(leaf)
    if problem.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradient_of(contender, logits, indices)
        return (torch.cuda.max_memory_allocated() - before) / problem.logits_bytes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = resident_bytes("VmRSS")
    gradient_of(contender, logits, indices)
    return (resident_bytes("VmHWM") - before) / problem.logits_bytes


def in_own_process(problem: Problem, name: str) -> float:
    """`measure_memory` in a process that has done nothing else."""
    command = [sys.executable, __file__, *sys.argv[1:], "--device", problem.device]
    done = subprocess.run(
        [*command, "--memory-of", name], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def spread(values: list[float]) -> str:
    """Median and quartiles; of one value that value."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:7.2f} ({low:.2f} to {high:.2f})"


def report(problem: Problem, names: list[str], rounds: int, with_memory: bool) -> None:
    """Measure and print a table."""
    times = measure_times(problem, names, rounds)
    on_gpu = problem.device == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    print(
        f"{problem.shape} {problem.dtype} on {where}, torch {torch.__version__}; "
        f"{rounds} rounds: median (quartiles)"
    )
    print(f"{'':13} {'ms':>26} {'times ours':>26} {'% of copy speed':>26} {'memory':>8}")
    for name in names:
        milliseconds = [value * 1e3 for value in times[name]]
        ratios = [value / own for value, own in zip(times[name], times[OURS], strict=True)]
        # The least that can be moved is what a copy moves: the logits in, the gradient out.
        shares = [100 * c / value for value, c in zip(times[name], times["copy"], strict=True)]
        memory = f"{in_own_process(problem, name):8.2f}" if with_memory else ""
        print(
            f"{name:13} {spread(milliseconds):>26} {spread(ratios):>26} {spread(shares):>26} "
            f"{memory}"
        )
    gigabytes = [2 * problem.logits_bytes / value / 1e9 for value in times["copy"]]
    print(f"copy of the logits: {spread(gigabytes)} GB/s\n")


def differences(problem: Problem, peer: str) -> tuple[float, float]:
    """Of loss and gradient between ours and a peer, relative to the peer's."""
    leaf, indices = problem.inputs()
    leaf.requires_grad_()
    losses = contenders(problem.device)
    values = [losses[name](leaf.view_as(leaf), indices) for name in (OURS, peer)]
    gradients = [torch.autograd.grad(value, leaf)[0] for value in values]
    loss, gradient = (
        float((ours.double() - theirs.double()).norm() / theirs.double().norm())
        for ours, theirs in ([value.detach() for value in values], gradients)
    )
    return loss, gradient


def rows_of(problem: Problem, peers: list[str], rounds: int, with_memory: bool) -> list[Row]:
    """Time and memory of ours beside each peer, both compared."""
    names = [OURS, *peers]
    times = measure_times(problem, names, rounds)
    repeats = range(min(3, 1 + rounds // 5) if with_memory else 0)
    memory = {name: [in_own_process(problem, name) for _ in repeats] for name in names}
    on_gpu = problem.device == "cuda"
    where = "GPU" if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    dtype = str(problem.dtype).removeprefix("torch.")
    setting = f"{' × '.join(map(str, problem.shape))} {dtype} on {where}"
    loss_bound, gradient_bound = BOUNDS[problem.dtype]
    rows = []
    for peer in peers:
        loss, gradient = differences(problem, peer)
        about = {
            "equal": loss <= loss_bound and gradient <= gradient_bound,
            "compared": {
                "loss": loss,
                "loss_bound": loss_bound,
                "gradient": gradient,
                "gradient_bound": gradient_bound,
            },
            "about": machine(),
        }
        milliseconds = [[1e3 * value for value in times[name]] for name in (OURS, peer)]
        rows.append(row("focal_loss", peer, *milliseconds, setting=f"{setting}, ms", **about))
        if with_memory:
            sizes = f"{setting}, extra memory in sizes of the logits"
            rows.append(
                row("focal_loss memory", peer, memory[OURS], memory[peer], setting=sizes, **about)
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=11)
    parser.set_defaults(threads=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--shape", type=int, nargs=3, metavar=("B", "R", "K"))
    parser.add_argument("--only", nargs="+", default=[], help="contenders beside ours")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parse(parser)
    rows = []
    for device in [options.device.type]:
        on_gpu = device == "cuda"
        default_shape = (16, 201_600, 80) if on_gpu else (4, 50_000, 80)
        default_dtype = "bfloat16" if on_gpu else "float32"
        problem = Problem(
            device=device,
            dtype=getattr(torch, options.dtype or default_dtype),
            shape=tuple(options.shape or ((4, 30_000, 80) if options.quick else default_shape)),
        )
        if options.memory_of:
            print(json.dumps(measure_memory(problem, options.memory_of)))
            continue
        with_memory = not options.no_memory
        if options.json:
            peers = options.only or ["torchvision", "compiled"]
            rows += rows_of(problem, peers, options.rounds, with_memory)
            continue
        wanted = [OURS, *(options.only or contenders(device))]
        names = [name for name in contenders(device) if name in wanted]
        report(problem, names, options.rounds, with_memory)
    if options.json and not options.memory_of:
        show(rows, as_json=True)


if __name__ == "__main__":
    main()
