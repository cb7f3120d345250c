"""The head of separable convolutions beside the standard one, on one core.

    python benchmarks/separable_head.py [--rounds 11] [--size 240 400] [--training] [--bf16]

Both heads are run on the five maps of one image, channels-last, turn by turn in one process with
one thread. Each row is a width: the medians of the process's own time, and the median, lowest and
highest ratio of a round. Without `--training` it is the forward pass of a prediction.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch

from retina.modeling.head import HeadConfig, RetinaHead
from retina.modeling.separable import Convs

WIDTHS = (256, 128, 64)
STRIDES = (8, 16, 32, 64, 128)
GROUPS = 16
ANCHORS, CLASSES = 9, 80


def head_of(convs: Convs, width: int) -> RetinaHead:
    """A head as the small configs have it, at that width."""
    config = HeadConfig(convs=convs, norm="group", num_groups=GROUPS)
    head = config.build(in_channels=width, num_anchors=ANCHORS, num_classes=CLASSES)
    return head.to(memory_format=torch.channels_last)


def maps_of(size: tuple[int, int], width: int, *, learn: bool) -> list[torch.Tensor]:
    """The pyramid's maps of an image of that height and width."""
    sides = [tuple(math.ceil(side / stride) for side in size) for stride in STRIDES]
    maps = [torch.randn(1, width, *side) for side in sides]
    return [one.contiguous(memory_format=torch.channels_last).requires_grad_(learn) for one in maps]


def seconds(head: RetinaHead, maps: list[torch.Tensor], *, bf16: bool, training: bool) -> float:
    """Of the process, for one pass."""
    began = time.process_time()
    with (
        torch.set_grad_enabled(training),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        predictions = head(maps)
        outputs = (*predictions.class_logits, *predictions.box_codes)
        total = sum(output.float().mean() for output in outputs) if training else None
    if isinstance(total, torch.Tensor):
        total.backward()
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 400))
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    how = {"bf16": arguments.bf16, "training": arguments.training}
    print("| channels | standard, ms | separable, ms | ratio | lowest | highest |")
    print("|---|---|---|---|---|---|")
    for width in WIDTHS:
        maps = maps_of(arguments.size, width, learn=arguments.training)
        heads = [head_of("standard", width), head_of("separable", width)]
        rounds = [
            [seconds(head, maps, **how) for head in heads] for _ in range(arguments.rounds + 1)
        ][1:]
        ratios = [separable / standard for standard, separable in rounds]
        standard, separable = (1000 * statistics.median(side) for side in zip(*rounds, strict=True))
        print(
            f"| {width} | {standard:.1f} | {separable:.1f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} | {max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
