"""Training speed of the RetinaNet ResNet-50 on generated photos, and where the time goes.

    python benchmarks/training_speed.py [--batch 16] [--steps 60] [--output DIR]

Runs the trainer's own step and loader on JPEGs of 640×480 with 0 to 20 boxes each, at a shorter
side of 800 (padded to 800×1344 at most), in the order: network with data from memory, network with
data from disk. torchvision's own model trains beside it on the same images under the same autocast,
alternating in rounds; the ratio and its spread are printed, then the share of the time that our
loop waits for data, and the peak memory of both. Made for a GPU; on a CPU give smaller numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from retina.configuration import validate
from retina.datasets.batch_sampling import BatchSampler, BatchStream
from retina.datasets.formats.coco import CocoConfig
from retina.datasets.loading import Collate, LoaderConfig
from retina.devices import autocast, pick_device, pick_precision
from retina.experiment import ExperimentConfig
from retina.modeling.config import ModelConfig
from retina.structures import Batch
from retina.training.step import TrainingStep

NUM_CLASSES = 80


def write_photos(folder: Path, count: int) -> Path:
    """JPEGs of smooth noise with boxes, in COCO's format; the path of the annotations."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        small = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), picture)
        images.append({"id": number + 1, "file_name": f"{number}.jpg", "width": 640, "height": 480})
        for _ in range(int(generator.integers(0, 21))):
            width, height = generator.uniform(10, 300, 2)
            x, y = generator.uniform(0, 640 - width), generator.uniform(0, 480 - height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": int(generator.integers(1, NUM_CLASSES + 1)),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": n + 1, "name": f"class {n}"} for n in range(NUM_CLASSES)]
    path = folder / "annotations.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def peer(device: torch.device, size: int) -> Callable[[Batch], None]:
    """One training step of torchvision's model on a batch."""
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, min_size=size
    ).to(device)
    for name, parameter in model.backbone.body.named_parameters():
        parameter.requires_grad_(not name.startswith(("conv1", "bn1", "layer1")))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)
    precision = pick_precision("auto", device)

    def step(batch: Batch) -> None:
        model.train()
        images, targets = [], []
        for row, (height, width) in enumerate(batch.image_sizes):
            images.append(batch.images[row, :, :height, :width].to(device).float() / 255)
            kept = batch.targets.is_object[row] & ~batch.targets.is_crowd[row]
            targets.append(
                {
                    "boxes": batch.targets.boxes[row][kept].to(device),
                    "labels": batch.targets.labels[row][kept].to(device),
                }
            )
        with autocast(precision, device):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ours(device: torch.device, config: ExperimentConfig) -> Callable[[Batch], None]:
    """One training step of this project on a batch."""
    model: ModelConfig = config.model.without_pretrained_weights()
    detector = model.build(NUM_CLASSES).to(device)
    step = TrainingStep(
        detector=detector,
        preprocess=config.preprocess.build().to(device),
        criterion=config.objective.build(detector.box_coder).to(device),
        optimizer=torch.optim.SGD(
            [p for p in detector.parameters() if p.requires_grad],
            lr=1e-4,
            momentum=0.9,
            fused=True,
        ),
        device=device,
        precision=pick_precision("auto", device),
        clip_norm=None,
    )

    def run(batch: Batch) -> None:
        step([batch])

    return run


def seconds(function: Callable[[], None], device: torch.device) -> float:
    """Wall-clock time of a call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak_memory(function: Callable[[], None], device: torch.device) -> float:
    """GiB of device memory at the peak of a call; 0 where the device does not say."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return torch.cuda.max_memory_allocated(device) / 2**30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--num-workers", type=int, default=12)
    parser.add_argument("--output", type=Path, default=None, help="folder for training_speed.json")
    arguments = parser.parse_args()
    device = pick_device()
    sizes = {"preprocess": {"min_size": arguments.size, "max_size": arguments.size * 5 // 3}}
    data = {"images": "x", "annotations": "y"}
    tree = {"preset": "torchvision_v1", **sizes, "output_dir": "x", "dataset": {"train": data}}
    config = validate(tree, ExperimentConfig, source="benchmark")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotations = write_photos(folder, max(64, 4 * arguments.batch))
        dataset = CocoConfig(images=folder / "images", annotations=annotations).build()
        batch_sampler = BatchSampler(
            image_sizes=dataset.image_sizes,
            batch_size=arguments.batch,
            seed=0,
            sizes=[(config.preprocess.min_size, config.preprocess.max_size)],
            drop_last=True,
        )
        stream = BatchStream(batch_sampler, 0, 4)
        batches = list(LoaderConfig().build(dataset, stream, Collate(32), num_workers=0))
        ready = [batch.to(device) for batch in batches]

        steps = {
            "ours": ours(device, config),
            "torchvision": peer(device, config.preprocess.min_size),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for round_number in range(-2, arguments.rounds):  # two rounds of warm-up
            for name, step in steps.items():
                taken = seconds(lambda s=step: [s(b) for b in ready], device) / len(ready)
                if round_number >= 0:
                    times[name].append(taken)
        ratios = [t / o for o, t in zip(times["ours"], times["torchvision"], strict=True)]
        memory = {name: peak_memory(lambda s=s: s(ready[0]), device) for name, s in steps.items()}

        loader = LoaderConfig().build(
            dataset,
            BatchStream(batch_sampler, 0, arguments.steps),
            Collate(32),
            num_workers=arguments.num_workers,
            pin_memory=device.type == "cuda",
        )
        waited, started = 0.0, 0.0
        iterator = iter(loader)
        for number in range(arguments.steps):
            if number == 5:  # the workers have started
                waited, started = 0.0, time.perf_counter()
            before = time.perf_counter()
            batch = next(iterator)
            waited += time.perf_counter() - before
            steps["ours"](batch)
        total = seconds(lambda: None, device) + time.perf_counter() - started

    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "batch": arguments.batch,
        "padded_size": list(ready[0].padded_size),
        "ours_images_per_second": arguments.batch / statistics.median(times["ours"]),
        "torchvision_images_per_second": arguments.batch / statistics.median(times["torchvision"]),
        "ratio_median": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "ours_with_loader_images_per_second": arguments.batch * (arguments.steps - 5) / total,
        "data_wait_share": waited / total,
        "peak_memory_gib": memory,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "training_speed.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
