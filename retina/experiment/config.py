"""The configuration of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from retina.configuration import PRESETS, Config, load_config
from retina.datasets import AnyDatasetConfig, DatasetConfig, SourceConfig
from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.loading import LoaderConfig
from retina.datasets.sampling import SamplingConfig
from retina.errors import list_given, path_given
from retina.evaluation.engines import BATCH_SIZE, DEFAULT_BACKEND, Backend
from retina.modeling.config import ModelConfig
from retina.modeling.detector_names import DetectorSource, as_text, detector_given
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import ObjectiveConfig
from retina.training.config import TrainingConfig
from retina.training.optimization import (
    MultiStepConfig,
    OptimizerConfig,
    ScheduleConfig,
    SGDConfig,
)
from retina.training.run_folder import recorded_run


class SplitsConfig(Config):
    """The splits of a data set."""

    train: AnyDatasetConfig
    """The images and annotations that the detector is trained on."""
    validation: AnyDatasetConfig | None = None
    """What is scored during training and chooses the best detector; null trains without."""
    test: AnyDatasetConfig | None = None
    """A split kept for `retina evaluate --split test`; the training never reads it."""

    @field_validator("train", "validation", "test")
    @classmethod
    def _name_its_split(
        cls, part: DatasetConfig | None, info: ValidationInfo
    ) -> DatasetConfig | None:
        """Of a source with several splits, each is the one that it is here."""
        if isinstance(part, SourceConfig) and part.split is None:
            return part.model_copy(update={"split": info.field_name})
        return part


StartSource = Annotated[
    DetectorSource,
    PlainValidator(partial(detector_given, argument="a detector")),
    PlainSerializer(as_text, when_used="json"),
    WithJsonSchema({"type": "string"}, mode="validation"),
]
"""`DetectorSource` as a key of a config."""


class InitializedModelConfig(ModelConfig):
    """The parts of a detector, and where its weights come from."""

    initialize_from: StartSource | None = None
    """What the weights are taken from where name and shape fit, for fine-tuning: a detector file; a
    state dict or checkpoint (.pt, .pth) of torchvision's RetinaNet; or `coco_v1` or `coco_v2`,
    trained on COCO, which torchvision fetches."""


class EvaluationConfig(Config):
    """How the validation set is scored during training."""

    batch_size: Annotated[int, Field(ge=1)] = BATCH_SIZE
    """Images that the network is given at a time."""
    backend: Backend = DEFAULT_BACKEND
    """The scoring engine; both give the same numbers."""
    report: bool = True
    """At the end, write ``evaluation/report.html`` about the best detector."""


class ExperimentConfig(Config):
    """Everything that decides how a training goes."""

    preset_folder: ClassVar[Path | None] = PRESETS

    preset: str | None = None
    """A named recipe that this config stands on: see docs/recipes.md."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What every random number is drawn from: weights, order of the images, augmentation."""
    device: str = "auto"
    """``auto`` (CUDA, then MPS, then CPU), ``cuda``, ``cuda:1``, ``mps`` or ``cpu``."""
    output_dir: Path
    """The run folder, for checkpoints, detectors, logs and the resolved config."""
    dataset: SplitsConfig
    """The images and annotations."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of the training images."""
    sampling: SamplingConfig = SamplingConfig()
    """How images are drawn and grouped into batches."""
    loader: LoaderConfig = LoaderConfig()
    """How worker processes make batches: start method, prefetching, time-out, unreadable images."""
    model: InitializedModelConfig = InitializedModelConfig()
    """The parts of the detector, and the file that its weights start from, if any."""
    preprocess: PreprocessConfig = Field(PreprocessConfig(), validate_default=True)
    """How an image becomes the network's input. Mean, deviation and channel order are those of the
    backbone's pretrained weights where neither the config nor its preset says them."""
    postprocess: PostprocessConfig = PostprocessConfig()
    """How the network's output becomes detections."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What is trained for: assigner, classification loss, box loss and their normaliser."""
    optimizer: OptimizerConfig = SGDConfig()
    """How the weights follow the gradient."""
    schedule: ScheduleConfig = MultiStepConfig()
    """How the learning rate changes over the training: a warm-up, then drops or a curve."""
    training: TrainingConfig = TrainingConfig()
    """How long and how it is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the validation set is scored."""

    @field_validator("preprocess")
    @classmethod
    def _pixels_of_the_backbone(
        cls, preprocess: PreprocessConfig, info: ValidationInfo
    ) -> PreprocessConfig:
        """What the backbone's weights were trained on is taken where nothing else is said."""
        model: ModelConfig | None = info.data.get("model")  # None where it is wrong itself
        pixels = None if model is None else model.backbone.default_pixels
        if pixels is None:
            return preprocess
        own = asdict(pixels)
        unset = {name: own[name] for name in own if name not in preprocess.model_fields_set}
        return preprocess.model_copy(update=unset)

    def without_start_weights(self) -> Self:
        """The same experiment with random weights: for a training whose weights a file holds."""
        model = self.model.without_pretrained_weights()
        model = model.model_copy(update={"initialize_from": None})
        return self.model_copy(update={"model": model})

    def from_scratch(self) -> Self:
        """The same experiment with weights that nothing was trained on, all of which learn."""
        start = self.without_start_weights()
        backbone = start.model.backbone
        norm = "batch" if backbone.norm == "frozen" else backbone.norm
        backbone = backbone.model_copy(update={"frozen_stages": 0, "norm": norm})
        model = start.model.model_copy(update={"backbone": backbone})
        optimizer = start.optimizer.model_copy(update={"backbone_lr_factor": 1.0})
        return start.model_copy(update={"model": model, "optimizer": optimizer})


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment's config.

    The ``config.yaml`` of a run is that of the run folder that it lies in, which is then the
    ``output_dir`` unless the overrides name one.

    Args:
        path: the YAML file, or the name of one that comes with the package (``nano.yaml``).
        overrides: ``dotted.path=value`` each, as on the command line.

    Raises:
        ConfigError: with every problem of the file in one message.
        UserError: an argument is of another kind.
    """
    overrides = list_given(overrides, "overrides")
    path = path_given(path, "config")
    config = load_config(path, overrides, ExperimentConfig)
    run = recorded_run(path)
    if run is None or any(one.partition("=")[0].strip() == "output_dir" for one in overrides):
        return config
    return config.model_copy(update={"output_dir": run})
