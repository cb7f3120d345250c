r"""One training step: ours beside torchvision's RetinaNet with the same weights and data.

    python benchmarks/train_step.py [--eager] [--size 256] [--batch 8] [--rounds 9]

The recipe of `configs/nano.yaml`: ResNet-18 from scratch with live norms, 64 channels, group norm,
GIoU, AdamW with clipped gradients; 10 classes, 7 objects an image. From uint8 images in host memory
to updated weights. On a GPU it is torchvision's ResNet-50 (v1) with live norms, 16 images of 1024².
Ours runs as `retina train` does, in bf16 where that is fast here. Peers:
torchvision in float32; channels-last under autocast; that with backbone and head compiled.
Losses and assignment are torchvision's own, the optimizer is made as its reference
training makes it; ours is fused.

``equal``: the losses of the first three steps, each from the weights that the steps before it have
made, are within 1 % of the peer's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from assignment import targets_of
from comparisons import OURS, Row, alternate, machine, parse, parser_of, row, show
from torch import Tensor, nn
from torchvision_detectors import CPU, example_image, make_nano, make_resnet50

from retina.devices import Precision, autocast, pick_precision
from retina.experiment import ExperimentConfig
from retina.modeling.detector import RetinaNet
from retina.structures import Batch, BatchedTargets, Targets
from retina.training.forward import ForwardPass
from retina.training.step import TrainingStep

NUM_CLASSES = 10
NUM_OBJECTS = 7
LR = 1e-4
NUM_COMPARED = 3
BOUND = 0.01
"""Of the loss."""

Step = Callable[[], float]
"""Takes a step and gives its loss."""


def batch_of(
    size: int, count: int, *, num_objects: int = NUM_OBJECTS, num_classes: int = NUM_CLASSES
) -> tuple[list[Tensor], list[Targets]]:
    """Pictures that are shifts of one another, and objects with labels; each has one more."""
    generator = torch.Generator().manual_seed(0)
    picture = example_image(size)
    images = [picture.roll((7 * number, 13 * number), (1, 2)) for number in range(count)]
    made = [targets_of((size, size), num_objects + number) for number in range(count)]
    targets = [
        Targets(
            one.boxes,
            torch.randint(0, num_classes, (len(one.boxes),), generator=generator),
            one.is_crowd,
        )
        for one in made
    ]
    return images, targets


def our_step(
    config: ExperimentConfig,
    detector: RetinaNet,
    images: Sequence[Tensor],
    targets: Sequence[Targets],
    precision: Precision,
    device: torch.device = CPU,
) -> Step:
    """A step as the trainer takes it."""
    detector = copy.deepcopy(detector).to(device, memory_format=torch.channels_last)
    forward = ForwardPass(
        detector,
        config.preprocess.build().to(device),
        config.objective.build(detector.box_coder).to(device),
        device,
        precision,
    )
    optimizer = torch.optim.AdamW(detector.parameters(), LR, weight_decay=0.05, fused=True)
    step = TrainingStep(forward, optimizer, clip_norm=1.0)
    sizes = tuple((image.shape[1], image.shape[2]) for image in images)
    batch = Batch(
        images=torch.stack(list(images)),
        valid_sizes=torch.tensor(sizes),
        image_ids=tuple(range(len(images))),
        image_sizes=sizes,
        targets=BatchedTargets.from_targets(targets),
    )

    def run() -> float:
        return float(step([batch]).losses.total)

    return run


def their_step(
    model: nn.Module,
    images: Sequence[Tensor],
    targets: Sequence[Targets],
    precision: Precision,
    device: torch.device = CPU,
    *,
    compiled: bool = False,
) -> Step:
    """A step as torchvision's reference takes it."""
    model = copy.deepcopy(model).train().to(device)
    if precision == "fp32":
        model.to(memory_format=torch.contiguous_format)
    if compiled:
        model.backbone.compile()
        model.head.compile()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
    wanted = [{"boxes": one.boxes.to(device), "labels": one.labels.to(device)} for one in targets]

    def run() -> float:
        with autocast(precision, device):
            loss = sum(model([image.to(device) / 255 for image in images], wanted).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return run


def compare(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of two losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


NETWORKS = {"nano": make_nano, "ResNet-50": make_resnet50}


def measure(
    network: str, size: int, count: int, rounds: int, device: torch.device, *, compiled: bool
) -> list[Row]:
    """All peers beside ours in the precision that it takes, and in float32 beside float32."""
    model, config, detector = NETWORKS[network](NUM_CLASSES, size)
    images, targets = batch_of(size, count)
    auto = pick_precision("auto", device)
    steps = {
        OURS: our_step(config, detector, images, targets, auto, device),
        f"{OURS} fp32": our_step(config, detector, images, targets, "fp32", device),
        "torchvision fp32": their_step(model, images, targets, "fp32", device),
        "torchvision bf16": their_step(model, images, targets, "bf16", device),
    }
    if compiled:
        steps["torchvision compiled"] = their_step(
            model, images, targets, "bf16", device, compiled=True
        )
    losses = {name: [step() for _ in range(NUM_COMPARED)] for name, step in steps.items()}
    times = alternate(steps, rounds)
    about, rows = machine(), []
    for peer in (name for name in steps if not name.startswith(OURS)):
        for mine in (OURS, f"{OURS} fp32") if peer == "torchvision fp32" else (OURS,):
            gap = compare(losses[mine], losses[peer])
            precision = auto if mine == OURS else "fp32"
            rows.append(
                row(
                    "train_step" if mine == OURS else "train_step fp32",
                    peer,
                    times[mine],
                    times[peer],
                    equal=gap <= BOUND,
                    compared={
                        "loss": losses[mine][0],
                        "peer's": losses[peer][0],
                        "difference": gap,
                        "bound": BOUND,
                    },
                    setting=f"{network}, {size}², B = {count}, {device.type}, ours {precision}",
                    about=about,
                )
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--size", type=int, help="of the images' sides: 256, on a GPU 1024")
    parser.add_argument("--batch", type=int, help="images of a step: 8, on a GPU 16")
    parser.add_argument("--eager", action="store_true", help="without torchvision compiled")
    options = parse(parser)
    on_gpu = options.device.type != "cpu"
    network = "ResNet-50" if on_gpu else "nano"
    size, count = (1024, 16) if on_gpu else (256, 8)
    size, count = (128, 2) if options.quick else (options.size or size, options.batch or count)
    compiled = not (options.eager or options.quick)
    show(
        measure(network, size, count, options.rounds, options.device, compiled=compiled),
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
