"""Which loss the detector that is looked at was trained with, and what the figures call it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retina.errors import UserError
from retina.experiment.data import ResolvedData
from retina.instruments.anatomy.measuring import TrainedLoss, needs_counting, trained_loss
from retina.objective.criterion import ObjectiveConfig
from retina.wording import counted, writable


def objective_of(resolved: ResolvedData) -> ObjectiveConfig:
    """The objective of the config that the data belongs to, or the default one."""
    return ObjectiveConfig() if resolved.config is None else resolved.config.objective


def find_trained_loss(resolved: ResolvedData) -> TrainedLoss:
    """The loss of the training; counts the objects of its training set where that takes it.

    Where the training set cannot be read, the loss is not exact and says so.
    """
    config, objective = resolved.config, objective_of(resolved)
    if config is None or not needs_counting(objective):
        return trained_loss(objective)
    try:
        train = config.dataset.train.build(
            resolved.dataset.categories,
            antialias=config.preprocess.antialias,
            check_images=False,  # only the labels are counted
        )
    except UserError as error:
        loss = trained_loss(objective)
        return replace(loss, difference=f"{loss.difference}: {error}")
    return trained_loss(objective, train.class_counts())


def picture_title(detector: Path, data: str, num_images: int) -> str:
    """The end of the detector's path, and the data."""
    name = "/".join(part for part in detector.parts[-4:] if part not in ("/", "checkpoints"))
    return writable(f"{name} · {data}, {counted(num_images, 'image')}", "utf-8")
