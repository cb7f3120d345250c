"""Which anchor answers for which object, by IoU: ours beside torchvision's.

    python benchmarks/assignment.py [--threads 1] [--rounds 9]

Four images of 800 × 1333 with 201,600 anchors each and 1, 7, 20 and 60 objects. torchvision goes
image by image through `box_iou` and its `Matcher` with the thresholds of RetinaNet; ours takes the
batch. ``equal``: every anchor is foreground, ignored and background as there, for the same object.
"""

from __future__ import annotations

from functools import partial

import torch
from comparisons import OURS, alternate, machine, parse, parser_of, row, show
from postprocess import anchors_of
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retina.objective.assignment.max_iou import MaxIoUConfig
from retina.structures import Assignment, BatchedTargets, Size, Targets

COUNTS = (1, 7, 20, 60)


def targets_of(size: Size, count: int) -> Targets:
    """Objects as large as COCO's, somewhere in the image."""
    generator = torch.Generator().manual_seed(count)
    height, width = size
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 3.2 + 2.3)
    sides = torch.minimum(sides, torch.tensor([width, height]) - 1.0)
    corners = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], dim=1)
    return Targets(boxes, torch.zeros(count, dtype=torch.int64), torch.zeros(count).bool())


def with_torchvision(anchors: Tensor, boxes: list[Tensor]) -> list[Tensor]:
    """As its `RetinaNet.compute_loss` does, from the boxes of each image."""
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    return [matcher(box_iou(one, anchors)) for one in boxes]


def as_matches(assignment: Assignment) -> Tensor:
    """In torchvision's numbers: the object, -1 for background, -2 for what is ignored."""
    others = torch.where(assignment.is_ignored, -2, -1)
    return torch.where(assignment.is_foreground, assignment.target_index, others)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=9)
    parser.set_defaults(threads=1)
    options = parse(parser)
    size = (200, 333) if options.quick else (800, 1333)
    anchors, _ = anchors_of(size, options.device)
    images = [targets_of(size, count) for count in COUNTS]
    targets = BatchedTargets.from_targets(images).to(options.device)
    ours = partial(MaxIoUConfig().build(), anchors, targets)
    boxes = [image.boxes.to(options.device) for image in images]
    theirs = partial(with_torchvision, anchors.boxes, boxes)
    found, expected = as_matches(ours()), torch.stack(theirs())
    different = int((found != expected).sum())
    times = alternate({OURS: ours, "torchvision": theirs}, options.rounds)
    made = row(
        "assignment",
        "torchvision",
        times[OURS],
        times["torchvision"],
        equal=different == 0,
        compared={"foreground": int((expected >= 0).sum()), "different anchors": different},
        setting=f"B = {len(COUNTS)}, {len(anchors)} anchors, {sum(COUNTS)} objects",
        about=machine(),
    )
    show([made], as_json=options.json)


if __name__ == "__main__":
    main()
