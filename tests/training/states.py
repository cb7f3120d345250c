"""A training state made by hand."""

from __future__ import annotations

import torch

from retina.training.checkpoint import TrainingState
from retina.training.generators import generator_states


def make_state() -> TrainingState:
    return TrainingState(
        config="seed: 0\n",
        dataset="f00d",
        pretrained={"name": "resnet18", "source": "a file", "sha256": None, "licence": "MIT"},
        step=7,
        steps_per_epoch=5,
        is_evaluated=True,
        detector={"w": torch.arange(3.0)},
        criterion={},
        optimizer={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]},
        scaler={},
        best_metric=0.5,
        hooks={"anatomy": {"shares": [0.1], "has_warned": False}},
        meter={"losses": torch.zeros(6), "images": 8, "seconds": 0.5, "waited": 0.1},
        log={"metrics.jsonl": 120},
        generators=[generator_states()],
    )
