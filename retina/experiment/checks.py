"""What a config, its data and its run folder must be to each other, told before anything starts."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch

from retina.distributed import world_size
from retina.errors import UserError
from retina.experiment.config import ExperimentConfig, InitializedModelConfig
from retina.structures import Categories
from retina.training.config import TrainingConfig
from retina.training.run_folder import CONFIG, holds_run
from retina.wording import counted, writable


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to write over a run, or where not every library can write.

    Raises:
        UserError: names ``--resume`` and another output_dir as the fixes.
    """
    whole = str(folder.absolute())
    if writable(whole, "utf-8") != whole:
        raise UserError(
            f"{folder}: the path holds bytes that are no text, which TensorBoard and safetensors "
            "cannot open; give another output_dir=FOLDER"
        )
    if resume or not (holds_run(folder) or (folder / CONFIG).exists()):
        return
    about = "" if holds_run(folder) else f" ({CONFIG} stands there, which would be written over)"
    raise UserError(
        f"{folder}: holds a run already; go on with it with --resume, or give another "
        f"output_dir=FOLDER{about}"
    )


def check_shares(training: TrainingConfig) -> None:
    """Refuse a batch that is too small to be shared.

    Raises:
        UserError: a part of the batch would have no image.
    """
    parts = world_size() * training.accumulation_steps
    if training.batch_size != "auto" and training.batch_size < parts:
        raise UserError(
            f"training.batch_size: {counted(training.batch_size, 'image')} cannot be shared by "
            f"{world_size()} "
            f"processes in {training.accumulation_steps} micro-batches each; make it at least "
            f"{parts}, or lower training.accumulation_steps"
        )


def check_loggers(training: TrainingConfig) -> None:
    """Refuse loggers that could not be started.

    Raises:
        UserError: a package is missing, or the user is not known to a service.
    """
    for logger in training.loggers:
        logger.check()


def check_objective(config: ExperimentConfig, categories: Categories) -> None:
    """Refuse a setting per class that is not one per class.

    Raises:
        UserError: names both counts.
    """
    try:
        config.objective.classification.check_classes(categories.names)
    except ValueError as error:
        raise UserError(str(error)) from None


def check_frozen(model: InitializedModelConfig) -> None:
    """Refuse to freeze what was never trained.

    Raises:
        UserError: names the keys.
    """
    backbone = model.backbone
    if backbone.frozen_stages and backbone.weights is None and model.initialize_from is None:
        known = f" ({backbone.usual_weights})" if backbone.usual_weights else ""
        raise UserError(
            f"model.backbone.frozen_stages: {backbone.frozen_stages} stages would stay random for "
            f"ever; set model.backbone.weights{known}, model.initialize_from, or 0"
        )


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed the global generators (weights, the order of the images come from it).

    Args:
        seed: of all of them.
        deterministic: whether torch shall use only deterministic algorithms. cuBLAS has them where
            its workspace is fixed, which must be said before its first use.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the libraries that use the global generator
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic)
