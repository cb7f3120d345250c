"""What is checked: a config and its data, read as a training reads them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from retina.configuration import Config
from retina.datasets import CocoConfig
from retina.datasets.dataset import DetectionDataset
from retina.datasets.sampling import MULTI_SCALE_FACTORS, scaled_sizes
from retina.errors import UserError
from retina.experiment import ExperimentConfig, build_dataset
from retina.instruments.doctor.findings import CheckResult, Finding, named


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


def _unreadable(part: Config, split: str, error: UserError) -> Finding:
    """The refusal as a finding, with the cause behind it where the format can name one."""
    shifted = _shifted_ids(part.annotations, split) if isinstance(part, CocoConfig) else None
    if shifted is not None:
        return shifted
    text = str(error)
    if "categories that the training set or the detector does not have" in text:
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


def _shifted_ids(path: Path, split: str) -> Finding | None:
    """Whether the ids of the annotations are those of the categories, moved by one."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
        listed = {entry["id"] for entry in tree["categories"]}
        used = Counter(entry["category_id"] for entry in tree["annotations"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # another fault, which the error itself tells
    unknown = sorted(used.keys() - listed)
    shift = next((s for s in (-1, 1) if all(number + s in listed for number in used)), None)
    if not unknown or shift is None:
        return None
    num_unknown = sum(used[number] for number in unknown)
    return Finding(
        code="category_ids_off_by_one",
        level="error",
        what=f"{path}: the category ids of the annotations are off by one: they run from "
        f"{min(used)} to {max(used)}, 'categories' lists {min(listed)} to {max(listed)}; "
        f"{num_unknown} annotations use the unlisted id {named(map(str, unknown))}",
        why=f"Every {split} object would be taught under its neighbour's name.",
        fix=f"Add {shift:+d} to every category_id of the file (or number 'categories' alike).",
        numbers={"shift": -shift, "unknown_annotations": num_unknown},
    )
