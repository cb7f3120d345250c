"""One training step and one scoring of two images, one of them with so many objects.

``crowded_image.py OBJECTS ASSIGNER`` prints by how many bytes the most that the process ever held
grew, in the step and in the scoring, beyond the same with one object.
"""

from __future__ import annotations

import json
import resource
import sys

import torch

from retina.configuration import validate
from retina.datasets.loading import collate
from retina.experiment.batch_size import LargestImage
from retina.modeling.config import ModelConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import ObjectiveConfig
from retina.structures import Batch, Sample, Targets
from retina.training.forward import ForwardPass
from retina.training.optimization import SGDConfig
from retina.training.step import TrainingStep

SIZE = (320, 320)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def batch_of(num_objects: int) -> Batch:
    crowded = LargestImage(SIZE, num_objects, num_crowd=0).batch(1)
    objects = Targets(
        crowded.targets.boxes[0], crowded.targets.labels[0], crowded.targets.is_crowd[0]
    )
    samples = [
        Sample(crowded.images[0], targets, number)
        for number, targets in enumerate([objects, Targets.empty()])
    ]
    return collate(samples)


def main(num_objects: int, assigner: str) -> None:
    torch.manual_seed(0)
    model = {
        "backbone": {"name": "resnet18", "norm": "frozen"},
        "pyramid": {"channels": 16},
        "head": {"num_convs": 1, "norm": "group", "num_groups": 4},
        "anchors": {"sizes": [16, 32, 64, 128, 256]},
    }
    detector = validate(model, ModelConfig, source="model").build(3)
    objective = validate({"assigner": {"kind": assigner}}, ObjectiveConfig, source="objective")
    forward = ForwardPass(
        detector=detector,
        preprocess=PreprocessConfig().build(),
        criterion=objective.build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
    )
    step = TrainingStep(forward, SGDConfig(lr=0.001).build(detector), clip_norm=None)

    def score(batch: Batch) -> float:
        with torch.no_grad():
            sums = forward.losses(batch)
        return float(sums.total / sums.divisor)

    few, many = batch_of(1), batch_of(num_objects)
    step([few])
    score(few)
    before = peak()
    losses = step([many]).losses
    in_step = peak() - before
    result = {
        "loss": float(losses.total),
        "num_foreground": float(losses.num_foreground),
        "in_step": in_step,
        "score": score(many),
        "in_all": peak() - before,
    }
    print(json.dumps(result))


main(int(sys.argv[1]), sys.argv[2])
