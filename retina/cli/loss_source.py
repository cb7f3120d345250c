"""Which images the commands of ``retina loss`` look at, and through which objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from retina.cli.choices import one_of
from retina.datasets.coco import CocoConfig
from retina.datasets.dataset import DetectionDataset
from retina.errors import UserError
from retina.experiment import ExperimentConfig, build_dataset, load_experiment
from retina.objective.criterion import ObjectiveConfig
from retina.structures import Categories


class DataOptions(Protocol):
    """The options that name the data, of any of the commands."""

    @property
    def checkpoint(self) -> Path: ...  # noqa: D102
    @property
    def data(self) -> Path | None: ...  # noqa: D102
    @property
    def annotations(self) -> Path | None: ...  # noqa: D102
    @property
    def images(self) -> Path | None: ...  # noqa: D102
    @property
    def config(self) -> Path | None: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class LossSource:
    """What is looked at, and what is said of it."""

    dataset: DetectionDataset
    name: str
    objective: ObjectiveConfig
    has_config: bool


def find_source(request: DataOptions, categories: Categories, *, antialias: bool) -> LossSource:
    """The data that was named, or that of the run; the objective of its config, or the run's."""
    one_of(request.split, ("train", "validation", "test"), "--split")
    config_path, annotations = _named_data(request)
    run = _run_config(request.checkpoint)
    if annotations is not None:
        if request.images is None:
            raise UserError(f"{annotations}: say where its images are with --images FOLDER")
        coco = CocoConfig(images=request.images, annotations=annotations)
        return LossSource(
            coco.build(categories=categories, antialias=antialias),
            str(annotations),
            ObjectiveConfig() if run is None else run.objective,
            run is not None,
        )
    config = run if config_path is None else load_experiment(config_path, [])
    if config is None:
        raise UserError(
            f"{request.checkpoint}: no config.yaml of a run lies beside its folder; say what to "
            "look at: --config CONFIG --split NAME, or --annotations FILE --images FOLDER"
        )
    dataset = build_dataset(config, request.split, categories=categories)
    return LossSource(dataset, request.split, config.objective, True)


def _named_data(request: DataOptions) -> tuple[Path | None, Path | None]:
    """The config and the annotation file that the options name, at most one of them."""
    config, annotations = request.config, request.annotations
    if request.data is not None:
        if config is not None or annotations is not None:
            raise UserError("--data stands for --config or --annotations: give only one of them")
        is_config = request.data.suffix in (".yaml", ".yml")
        config, annotations = (request.data, None) if is_config else (None, request.data)
    if config is not None and (annotations is not None or request.images is not None):
        raise UserError("give either a config or an annotation file with --images, not both")
    if request.images is not None and annotations is None:
        raise UserError("--images needs --annotations: the COCO file that describes them")
    return config, annotations


def _run_config(checkpoint: Path) -> ExperimentConfig | None:
    """The config of the run folder that a detector lies in: its ``checkpoints/`` has a sibling."""
    path = checkpoint.parent.parent / "config.yaml"
    return load_experiment(path, []) if path.is_file() else None
