"""From predictions at every anchor to detections: ours beside torchvision's.

    python benchmarks/postprocess.py [--threads 1] [--rounds 15]

One image of 800 × 1333, 201,600 anchors, 80 classes, float32, with logits as a trained detector
has them: nearly all far below the threshold, and objects that many anchors see. Both keep the best
1,000 pairs of each level above 0.05 and suppress within classes at an IoU of 0.5; ours keeps
empty boxes here, as torchvision does.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from comparisons import OURS, alternate, machine, parse, parser_of, row, show
from inference import compare
from torch import Tensor
from torchvision_detectors import make_torchvision

from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DeltasConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.structures import Anchors, DensePredictions, Detections, Size

NUM_CLASSES = 80
STRIDES = (8, 16, 32, 64, 128)
ANCHORS = AnchorConfig(round_sizes=True, stride_source="padded_size")


def anchors_of(size: Size, device: torch.device | str = "cpu") -> tuple[Anchors, list[Size]]:
    """Torchvision's of an image of this size, which is padded to 32 pixels; the levels' shapes."""
    padded = (math.ceil(size[0] / 32) * 32, math.ceil(size[1] / 32) * 32)
    shapes = [(math.ceil(padded[0] / s), math.ceil(padded[1] / s)) for s in STRIDES]
    return ANCHORS.build(STRIDES)(shapes, padded, device), shapes


def predictions_of(
    anchors: Anchors, shapes: list[Size], num_objects: int, num_classes: int = NUM_CLASSES
) -> DensePredictions:
    """Random logits around -7, raised where an anchor overlaps one of some objects."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(anchors), (num_objects,), generator=generator)
    labels = torch.randint(0, num_classes, (num_objects,), generator=generator)
    logits = torch.randn(len(anchors), num_classes, generator=generator) - 7.0
    for box, label in zip(anchors.boxes[rows], labels.tolist(), strict=True):
        low = torch.maximum(anchors.boxes[:, :2], box[:2])
        high = torch.minimum(anchors.boxes[:, 2:], box[2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        areas = (anchors.boxes[:, 2:] - anchors.boxes[:, :2]).prod(dim=1)
        own = (box[2:] - box[:2]).prod()
        logits[:, label] += 9.0 * shared / (areas + own - shared)
    codes = 0.1 * torch.randn(len(anchors), 4, generator=generator)
    per_level = list(anchors.num_per_level)

    def levels(values: Tensor) -> tuple[Tensor, ...]:
        parts = values.split(per_level)
        return tuple(
            part.view(1, height, width, -1, values.shape[1])
            for part, (height, width) in zip(parts, shapes, strict=True)
        )

    return DensePredictions(levels(logits), levels(codes))


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=15)
    parser.set_defaults(threads=1)
    options = parse(parser)
    size = (200, 333) if options.quick else (800, 1333)
    anchors, shapes = anchors_of(size)
    device = options.device
    predictions = predictions_of(anchors, shapes, num_objects=30)
    anchors, _ = anchors_of(size, device)
    predictions = DensePredictions(
        tuple(one.to(device) for one in predictions.class_logits),
        tuple(one.to(device) for one in predictions.box_codes),
    )
    ours = partial(
        PostprocessConfig(max_detections=300, smallest_side=0.0).build(DeltasConfig().build()),
        predictions,
        anchors,
        [size],
    )
    model = make_torchvision("random_v1", 64, 64)
    outputs = {
        "cls_logits": [one.flatten(1, 3).contiguous() for one in predictions.class_logits],
        "bbox_regression": [one.flatten(1, 3).contiguous() for one in predictions.box_codes],
    }
    boxes = list(anchors.boxes.split(list(anchors.num_per_level)))
    theirs = partial(model.postprocess_detections, outputs, [boxes], [size])
    with torch.no_grad():
        found, reference = ours()[0], theirs()[0]
        expected = Detections(*(reference[key].cpu() for key in ("boxes", "scores", "labels")))
        equal, compared = compare(found, expected, "fp32")
        times = alternate({OURS: ours, "torchvision": theirs}, options.rounds)
    setting = f"{size[0]} × {size[1]}, {len(anchors)} anchors, {NUM_CLASSES} classes, fp32"
    made = row(
        "postprocess",
        "torchvision",
        times[OURS],
        times["torchvision"],
        equal=equal and len(found) > 0,
        compared=compared,
        setting=setting,
        about=machine(),
    )
    show([made], as_json=options.json)


if __name__ == "__main__":
    main()
