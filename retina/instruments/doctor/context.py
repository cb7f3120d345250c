"""What is checked: a config and its data, read as a training reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from retina.datasets import DatasetConfig
from retina.datasets.categories import UnknownCategoriesError
from retina.datasets.dataset import DetectionDataset
from retina.datasets.sampling import MULTI_SCALE_FACTORS, scaled_sizes
from retina.errors import UserError
from retina.experiment import ExperimentConfig, build_dataset
from retina.instruments.doctor.findings import CheckResult, Finding


@dataclass(frozen=True, slots=True)
class CheckContext:
    """An experiment that can be checked.

    Attributes:
        config: the experiment.
        train: its training split.
        validation: its validation split; None without one, or where it cannot be read.
        folder: where ``batch.png`` goes; the checks at the start of a training need none.
    """

    config: ExperimentConfig
    train: DetectionDataset
    validation: DetectionDataset | None = None
    folder: Path = Path()

    @property
    def input_sizes(self) -> tuple[tuple[int, int], ...]:
        """The ``(min_size, max_size)`` that training draws from."""
        size, config = self.config.preprocess, self.config
        usual = MULTI_SCALE_FACTORS if config.augmentation.multi_scale else (1.0,)
        factors = config.sampling.scale_factors or usual
        return scaled_sizes(size.min_size, size.max_size, factors, stretch=size.stretch)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the pyramid's levels; no weight is made for it."""
        with torch.device("meta"):
            model = self.config.model.without_pretrained_weights()
            return model.pyramid.build(model.backbone.build().feature_specs).strides


def read_context(
    config: ExperimentConfig, folder: Path = Path()
) -> tuple[CheckContext | None, CheckResult]:
    """Read the splits; what a training would refuse becomes a finding.

    Returns:
        The context, None where the training split cannot be used, and what reading found.
    """
    try:
        train = build_dataset(config, "train")
    except UserError as error:
        finding = _unreadable(config.dataset.train, "training", error)
        return None, CheckResult("not readable", (finding,), {"images": 0})
    validation = None
    findings: tuple[Finding, ...] = ()
    if config.dataset.validation is not None:
        try:
            validation = build_dataset(config, "validation", categories=train.categories)
        except UserError as error:
            findings = (_unreadable(config.dataset.validation, "validation", error),)
    result = CheckResult(f"{len(train)} training images", findings, {"images": len(train)})
    return CheckContext(config, train, validation, folder), result


def _unreadable(part: DatasetConfig, split: str, error: UserError) -> Finding:
    """The refusal as a finding, with the reason behind it where it can be seen."""
    cause = part.cause_of_refusal(split)
    if cause is not None:
        return Finding(
            code=cause.code,
            level="error",
            what=cause.what,
            why=cause.why,
            fix=cause.fix,
            numbers=dict(cause.numbers),
        )
    text = str(error)
    if isinstance(error, UnknownCategoriesError):
        return Finding(
            code="validation_categories_unknown",
            level="error",
            what=text.partition(". Correct the names")[0],
            why="What is scored must be what is learned; the training would refuse to start.",
            fix="Correct the category names, or list the ones to keep under dataset.*.classes.",
        )
    return Finding(
        code=f"{split}_unreadable",
        level="error",
        what=text,
        why="The training would refuse to start.",
        fix="Correct the files or the paths of the config.",
    )
