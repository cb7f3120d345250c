"""What a training is made of, before it runs: what the hooks of instruments are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import torch

from retina.datasets.dataset import DetectionDataset
from retina.devices import pick_precision
from retina.experiment.config import ExperimentConfig
from retina.modeling.detector import RetinaNet
from retina.registry import HOOKS, is_present
from retina.training.forward import ForwardPass
from retina.training.run import Hook


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A training that is about to be put together.

    Attributes:
        config: with everything decided that the config left open.
        train: the training set.
        validation: the validation set, or None.
        class_counts: the objects of each class in the training set, where the loss needs them.
        forward: the detector and the criterion, on their device.
        total_steps: optimizer steps of the whole training.
    """

    config: ExperimentConfig
    train: DetectionDataset
    validation: DetectionDataset | None
    class_counts: Sequence[int] | None
    forward: ForwardPass
    total_steps: int


def build_forward(
    config: ExperimentConfig,
    detector: RetinaNet,
    class_counts: Sequence[int] | None,
    device: torch.device,
) -> ForwardPass:
    """From a batch to its losses, as the experiment says.

    Args:
        config: the experiment, its precision decided or not.
        detector: on the device.
        class_counts: for the losses that balance classes.
        device: where to compute.
    """
    criterion = config.objective.build(detector.box_coder, class_counts=class_counts)
    return ForwardPass(
        detector=detector,
        preprocess=config.preprocess.build().to(device),
        criterion=criterion.to(device),
        device=device,
        precision=pick_precision(config.training.precision, device),
    )


def instrument_hooks(setup: TrainingSetup, without: Sequence[str] = ()) -> list[Hook]:
    """What instruments hang on a training.

    Args:
        setup: the training.
        without: instruments that shall not look on, by the names of their packages.
    """
    unknown = {*without} - {name.split(".")[-2] for name in HOOKS}
    assert not unknown, f"no instrument hangs on a training by the name {unknown}"
    wanted = [name for name in HOOKS if name.split(".")[-2] not in without and is_present(name)]
    made = [import_module(name).make_hook(setup) for name in wanted]
    return [hook for hook in made if hook is not None]
