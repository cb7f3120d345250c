"""A small network, its batches, and the config of a small training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retina.datasets.loading import collate
from retina.devices import Precision, pick_precision
from retina.modeling.config import ModelConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import ObjectiveConfig
from retina.structures import Batch, Sample, Targets
from retina.training.forward import ForwardPass
from retina.training.optimization import AdamWConfig, SGDConfig
from retina.training.step import TrainingStep

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = ModelConfig.model_validate_json(
    """{"backbone": {"kind": "resnet", "name": "resnet18", "norm": "batch"},
        "pyramid": {"channels": 16},
        "head": {"num_convs": 1, "norm": "group", "num_groups": 4},
        "anchors": {"sizes": [16, 32, 64, 128, 256]}}"""
)


def make_batch(counts: Sequence[int], *, seed: int = 0, num_crowd: int = 0) -> Batch:
    """An image of noise for each count, with so many objects, the first of them crowd regions."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for number, count in enumerate(counts):
        corner = torch.rand(count, 2, generator=generator) * 40
        targets = Targets(
            boxes=torch.cat([corner, corner + 20], dim=1),
            labels=torch.randint(0, 3, (count,), generator=generator),
            is_crowd=torch.arange(count) < num_crowd,
        )
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
        samples.append(Sample(image, targets, number))
    return collate(samples)


def make_step(
    device: torch.device,
    *,
    precision: Precision = "fp32",
    objective: str = "{}",
    optimizer: SGDConfig | AdamWConfig | None = None,
    clip_norm: float | None = None,
) -> TrainingStep:
    """The step of a training that begins, the same on every device."""
    torch.manual_seed(0)
    pick_precision(precision, device)
    detector = MODEL.build(3)
    criterion = ObjectiveConfig.model_validate_json(objective).build(
        detector.box_coder, class_counts=[1, 1, 1]
    )
    forward = ForwardPass(
        detector=detector.to(device),
        preprocess=PreprocessConfig().build().to(device),
        criterion=criterion.to(device),
        device=device,
        precision=precision,
    )
    optimizer = optimizer or SGDConfig(lr=0.01)
    return TrainingStep(forward, optimizer.build(detector), clip_norm=clip_norm)


def state_of(step: TrainingStep) -> dict[str, Tensor]:
    """Everything that a step changes, but the scale of fp16's gradients: a copy by dotted names."""
    parts = {
        "detector": step.forward.detector.state_dict(),
        "criterion": step.forward.criterion.state_dict(),
        "optimizer": step.optimizer.state_dict()["state"],
    }
    return {
        name: copy.deepcopy(value)
        for name, value in flat(parts).items()
        if isinstance(value, Tensor)
    }


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts and lists by their dotted names."""
    if isinstance(value, dict):
        items = [(str(key), below) for key, below in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(key), below) for key, below in enumerate(value)]
    else:
        return {path: value}
    return {
        name: leaf for key, below in items for name, leaf in flat(below, f"{path}.{key}").items()
    }


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal to the bit, also where both are NaN."""
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    different = [
        name
        for name, value in ours.items()
        if not (
            torch.allclose(value.double(), theirs[name].double(), rtol=0, atol=0, equal_nan=True)
            if isinstance(value, Tensor)
            else value == theirs[name] or value != value
        )
    ]
    assert not different, f"{len(different)} of {len(ours)} differ: {', '.join(different[:5])}"


def write_config(folder: Path, device: torch.device, *, num_images: int = 24) -> Path:
    """Generate a data set and write the config of a training that takes seconds."""
    from retina.datasets.synthetic import generate_dataset

    data = folder / "data"
    generate_dataset(data, num_images=num_images, num_validation_images=8, seed=1)
    path = folder / "small.yaml"
    path.write_text(f"""
extends: {REPOSITORY / "configs" / "nano.yaml"}
device: {device.type}
dataset:
  train:
    images: {data / "train" / "images"}
    annotations: {data / "train" / "annotations.json"}
  validation:
    images: {data / "validation" / "images"}
    annotations: {data / "validation" / "annotations.json"}
model:
  pyramid: {{channels: 16}}
  head: {{num_convs: 1, num_groups: 4}}
preprocess: {{min_size: 64, max_size: 96}}
postprocess: {{score_threshold: 0.001}}
training: {{epochs: 2, batch_size: 8, num_workers: 0, precision: fp32, log_every_steps: 1}}
""")
    return path
