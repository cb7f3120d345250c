"""The parts that an experiment is put together from, each by itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from retina.configuration import NOT_SET, Tree, differences, read_preset
from retina.datasets import DatasetConfig
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.categories import UnknownCategories, UnknownCategoriesError
from retina.datasets.dataset import DetectionDataset
from retina.errors import UserError
from retina.evaluation.engines import BATCH_SIZE, COCO_MAX_DETECTIONS, DEFAULT_BACKEND, Backend
from retina.evaluation.evaluator import Evaluator
from retina.experiment.config import ExperimentConfig
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.detector_names import PublishedName
from retina.modeling.importers.published import published
from retina.modeling.importers.torchvision import CLASS_OUTPUTS, own_names
from retina.modeling.loading import LoadReport, load_matching, read_weights
from retina.modeling.preprocess import PreprocessConfig
from retina.modeling.pretrained import WeightOrigin, origin_of_file
from retina.prediction.detectors import load_detector
from retina.runtime import Runtime, TorchRuntime
from retina.structures import Categories


def build_dataset(
    config: ExperimentConfig,
    split: str,
    *,
    categories: Categories | None = None,
    check_images: bool = True,
    unknown_categories: UnknownCategories = "refuse",
) -> DetectionDataset:
    """A split of the experiment's data set.

    Args:
        config: the experiment.
        split: ``train``, ``validation`` or ``test``.
        categories: the labels to use, those of the training set.
        check_images: see `DatasetConfig.build`.
        unknown_categories: see `DatasetConfig.build`.

    Raises:
        UserError: the config has no such split, or its files are not as they should be.
    """
    part: DatasetConfig | None = getattr(config.dataset, split, None)
    if part is None:
        raise UserError(f"the config has no dataset.{split}")
    try:
        dataset: DetectionDataset = part.build(
            categories=categories,
            antialias=config.preprocess.antialias,
            check_images=check_images,
            unknown_categories=unknown_categories,
            # A score that left images out would not be comparable.
            max_unreadable=config.loader.max_unreadable if split == "train" else 0,
        )
    except UnknownCategoriesError as error:
        raise with_fix(error, LEAVE_OUT) from None
    return dataset


LEAVE_OUT = ", or give the names to score under 'classes' to leave the others out"
"""What a config can do about categories that nobody knows."""


def with_fix(error: UnknownCategoriesError, fix: str) -> UnknownCategoriesError:
    """The error with what can be done about it where the data was named."""
    text = str(error) if error.are_all else f"{error}{fix}"
    return UnknownCategoriesError(text, are_all=error.are_all)


def build_batch_sampler(
    config: ExperimentConfig, train: DetectionDataset, batch_size: int
) -> BatchSampler:
    """Which images make up which batch.

    Raises:
        UserError: not one batch can be made.
    """
    return config.sampling.build(
        train,
        batch_size=batch_size,
        seed=config.seed,
        min_size=config.preprocess.min_size,
        max_size=config.preprocess.max_size,
        stretch=config.preprocess.stretch,
        multi_scale=config.augmentation.multi_scale,
    )


def build_detector(
    config: ExperimentConfig, categories: Categories
) -> tuple[RetinaNet, LoadReport | None, tuple[str, ...]]:
    """The network for these classes, with pretrained weights where the config names some.

    Returns:
        The network; what became of each weight of ``model.initialize_from``; and the settings of
        model and preprocessing that differ from that file's, since weights that fit by shape may
        still mean something else.

    Raises:
        UserError: there are no such weights, or they are of another network.
    """
    source = config.model.initialize_from
    if source is None:
        return config.model.build(len(categories)), None, ()
    if not isinstance(source, Path):
        _check_backbone(source, config.model)
    detector = config.model.without_pretrained_weights().build(len(categories))
    if isinstance(source, Path) and source.suffix != ".safetensors":  # another program's
        weights = read_weights(source)
        report = load_matching(detector, own_names(weights.state_dict))
        return detector, replace(report, taken=weights.taken), ()
    artifact = load_detector(source)
    theirs, ours = (
        _architecture(whole.model, whole.preprocess) for whole in (artifact.config, config)
    )
    told = tuple(
        f"{key}: {there} there, {here} here"
        for key, (there, here) in differences(theirs, ours).items()
        if NOT_SET not in (there, here)
    )
    report = load_matching(detector, artifact.state_dict)
    if not isinstance(source, Path):
        report = _with_advice(report, source)
    return detector, report, told


def _check_backbone(name: PublishedName, model: ModelConfig) -> None:
    """Refuse another backbone before anything is fetched: what fits by shape fits by chance.

    Raises:
        UserError: says which preset has the right one.
    """
    preset = published(name).preset
    theirs = read_preset(preset)["model"]["backbone"]
    if (model.backbone.kind, model.backbone.name) != (theirs["kind"], theirs["name"]):
        raise UserError(
            f"model.initialize_from: {name} has the backbone {theirs['name']}, this config "
            f"{model.backbone.name}, which its weights do not fit; preset: {preset} has all that "
            f"fits, or set model.backbone.name: {theirs['name']}"
        )


def _with_advice(report: LoadReport, name: PublishedName) -> LoadReport:
    """The report, which names the preset that fits where more than the classes differ."""
    left = [*report.missing, *(one.name for one in report.mismatched), *report.unexpected]
    if all(key.startswith(CLASS_OUTPUTS) for key in left):
        return report
    advice = f"preset: {published(name).preset} is the architecture that fits all of {name}"
    return replace(report, advice=advice)


def find_origin(config: ExperimentConfig) -> WeightOrigin | None:
    """Where the weights are from that a training begins with; None for random ones.

    Args:
        config: the experiment, whose weights have been loaded.
    """
    source = config.model.initialize_from
    if source is None:
        return config.model.backbone.origin()
    if isinstance(source, Path) and source.suffix != ".safetensors":  # another program's
        return origin_of_file(source)
    return load_detector(source).config.pretrained


def _architecture(model: ModelConfig, preprocess: PreprocessConfig) -> Tree:
    # The layout in memory is no part of what the weights mean.
    return {
        "model": model.without_pretrained_weights().model_dump(
            mode="json", exclude={"memory_format"}
        ),
        "preprocess": preprocess.model_dump(mode="json"),
    }


def fingerprint(dataset: DetectionDataset) -> str:
    """What tells one training set from another: its images, their sizes, classes and boxes' count.

    No image and no box is looked at, so that it costs nothing on a large set.
    """
    report = dataset.report
    digest = hashlib.sha256(dataset.image_ids.tobytes())
    digest.update(dataset.image_sizes.tobytes())
    digest.update(repr((dataset.categories.names, report.num_boxes, report.num_crowd)).encode())
    return digest.hexdigest()


def build_evaluator(
    runtime: Runtime,
    dataset: DetectionDataset,
    *,
    max_detections: int | None = None,
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    backend: Backend = DEFAULT_BACKEND,
) -> Evaluator:
    """What scores a saved detector on a split.

    Args:
        runtime: runs it.
        dataset: the split, with the detector's labels.
        max_detections: detections of a category in an image that count; None for 100, as COCO says.
        batch_size: images at a time.
        num_workers: processes that load images.
        backend: the scoring engine.
    """
    return Evaluator(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=isinstance(runtime, TorchRuntime) and runtime.device.type == "cuda",
        max_detections=max_detections or COCO_MAX_DETECTIONS,
        backend=backend,
    )
