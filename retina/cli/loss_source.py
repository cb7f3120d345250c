"""Which images the commands of ``retina loss`` look at, and through which objective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from retina.cli.choices import one_of
from retina.datasets.coco import CocoConfig
from retina.datasets.dataset import DetectionDataset
from retina.errors import UserError
from retina.experiment import ExperimentConfig, build_dataset, load_experiment
from retina.instruments.anatomy.measuring import TrainedLoss, needs_counting, trained_loss
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
    def split(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class LossSource:
    """What is looked at, and what is said of it.

    Attributes:
        dataset: the split, with the detector's labels.
        name: the split's, or the annotation file.
        config: of the training, or None where nothing tells it.
        why_no_config: a clause for people.
    """

    dataset: DetectionDataset
    name: str
    config: ExperimentConfig | None
    why_no_config: str = "no config.yaml tells the training's"

    @property
    def objective(self) -> ObjectiveConfig:
        """Of the config, or the default one."""
        return ObjectiveConfig() if self.config is None else self.config.objective

    @property
    def has_config(self) -> bool:
        """Whether the objective is a training's."""
        return self.config is not None

    def trained_loss(self) -> TrainedLoss:
        """The loss of the training; counts the objects of its training set where that takes it.

        Where the training set cannot be read, the loss is not exact and says so.
        """
        if self.config is None or not needs_counting(self.objective):
            return trained_loss(self.objective)
        try:
            train = self.config.dataset.train.build(
                self.dataset.categories,
                antialias=self.config.preprocess.antialias,
                check_images=False,  # only the labels are counted
            )
        except UserError as error:
            loss = trained_loss(self.objective)
            return replace(loss, difference=f"{loss.difference}: {error}")
        return trained_loss(self.objective, train.class_counts())


def find_source(request: DataOptions, categories: Categories, *, antialias: bool) -> LossSource:
    """The data that was named, or that of the run; the objective of its config, or the run's."""
    split = request.split or "validation"
    one_of(split, ("train", "validation", "test"), "--split")
    config_path, annotations = _named_data(request)
    if annotations is not None:
        return _annotated(request, annotations, categories, antialias=antialias)
    config_path = config_path or _run_config(request.checkpoint)
    if config_path is None:
        raise UserError(
            f"{request.checkpoint}: lies in no checkpoints/ folder with a run's config.yaml beside "
            "it; say what to look at: --config CONFIG --split NAME, or --annotations FILE --images "
            "FOLDER"
        )
    config = load_experiment(config_path, [])
    return LossSource(build_dataset(config, split, categories=categories), split, config)


def _annotated(
    request: DataOptions, annotations: Path, categories: Categories, *, antialias: bool
) -> LossSource:
    """An annotation file that was named, looked at through the objective of the run if any."""
    if request.images is None:
        raise UserError(f"{annotations}: say where its images are with --images FOLDER")
    if request.split is not None:
        raise UserError(
            f"--split {request.split}: an annotation file has no splits; leave it away, or name a "
            "config instead of --annotations"
        )
    coco = CocoConfig(images=request.images, annotations=annotations)
    dataset = coco.build(categories=categories, antialias=antialias)
    path = _run_config(request.checkpoint)
    if path is None:
        return LossSource(dataset, str(annotations), None)
    try:
        config = load_experiment(path, [])
    except UserError as error:  # the images are named, and the loss has defaults
        return LossSource(dataset, str(annotations), None, f"{path} cannot be read: {error}")
    return LossSource(dataset, str(annotations), config)


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


def run_folder(checkpoint: Path) -> Path | None:
    """The folder of the run that a detector lies in, the one that holds its ``checkpoints/``.

    A detector in a folder of another name is no run's, whatever lies above it.
    """
    folder = checkpoint.parent
    if folder.absolute().name != "checkpoints":
        return None
    run = folder.parent if folder.name else folder.absolute().parent
    return run if (run / "config.yaml").is_file() else None


def _run_config(checkpoint: Path) -> Path | None:
    run = run_folder(checkpoint)
    return None if run is None else run / "config.yaml"


def picture_title(checkpoint: Path, data: str, num_images: int) -> str:
    """The end of the detector's path, and the data."""
    name = "/".join(part for part in checkpoint.parts[-4:] if part not in ("/", "checkpoints"))
    return f"{name} · {data}, {num_images} images"
