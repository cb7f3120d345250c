"""The gradient of depthwise convolutions in bf16 on a CPU: ours beside torch's layer.

    python benchmarks/depthwise.py [--threads 1] [--rounds 5]

The shapes are those of EfficientNet-Lite0 at 240×400 with eight images, channels-last. Each round
runs forward and backward of both, alternating; the medians and the ratio in a round are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from retina.modeling.depthwise import use_quick_depthwise

SHAPES = (  # channels, height, width, kernel, stride
    (96, 120, 200, 3, 2),
    (144, 60, 100, 5, 2),
    (240, 30, 50, 5, 1),
    (240, 30, 50, 3, 2),
    (480, 15, 25, 5, 1),
    (672, 15, 25, 5, 1),
    (1152, 8, 13, 5, 1),
)


def _seconds(layer: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    output.backward(torch.ones_like(output))
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| shape | torch, ms | ours, ms | ratio | lowest | highest |\n|---|---|---|---|---|---|")
    for channels, height, width, kernel, stride in SHAPES:
        plain = nn.Conv2d(
            channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
        )
        quick = nn.Sequential(plain)
        use_quick_depthwise(quick)
        images = torch.randn(8, channels, height, width, dtype=torch.bfloat16)
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        pairs = [
            (_seconds(plain, images), _seconds(quick, images)) for _ in range(arguments.rounds + 1)
        ][1:]
        ratios = [theirs / ours for theirs, ours in pairs]
        theirs, ours = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
        print(
            f"| {channels}×{height}×{width}, {kernel}×{kernel}/{stride} | {theirs:.0f} | {ours:.0f}"
            f" | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
