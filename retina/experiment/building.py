"""The one place where the parts of an experiment are put together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retina.artifact import Artifact, load_artifact, make_artifact
from retina.configuration import NOT_SET, Tree, differences, to_yaml
from retina.datasets import DatasetConfig
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.categories import UnknownCategories
from retina.datasets.dataset import DatasetReport, DetectionDataset
from retina.datasets.loading import Collate
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.distributed import barrier, is_main_process, world_size
from retina.errors import UserError
from retina.evaluation.engines import Backend
from retina.evaluation.evaluator import Evaluator
from retina.experiment.batch_size import check_auto_batch, decide_batch_size
from retina.experiment.checks import (
    check_frozen,
    check_objective,
    check_run_folder,
    check_shares,
    seed_everything,
)
from retina.experiment.config import ExperimentConfig
from retina.experiment.setup import TrainingSetup, build_forward, instrument_hooks
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.loading import LoadReport, load_matching
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import TorchRuntime
from retina.storage import make_folder, remove_parts, write_text
from retina.structures import Categories
from retina.training.batches import TrainingBatches
from retina.training.checkpointing import Checkpoints, RunIdentity
from retina.training.hooks import Hook
from retina.training.hooks.averaging import WeightAverage
from retina.training.hooks.divergence import DivergenceWatch
from retina.training.hooks.early_stopping import EarlyStopping
from retina.training.hooks.unreadable_images import UnreadableImages
from retina.training.hooks.validation_images import ValidationImages
from retina.training.meter import StepMeter
from retina.training.optimization import peak_learning_rate
from retina.training.resuming import ResumePoint, changes_since, find_resume_point
from retina.training.run import TrainingRun
from retina.training.run_folder import LAST_STATE, MakeArtifact, RunFolder
from retina.training.step import TrainingStep
from retina.training.trainer import Trainer
from retina.training.validation import Validation


@dataclass(frozen=True)
class Experiment:
    """A training that is ready to run.

    Attributes:
        trainer: runs it.
        config: with everything decided that the config left open.
        reports: what reading each split found, by the split's name.
        load_report: what was taken from ``model.initialize_from``, or None.
        differences: what the file that it starts from says otherwise, a line each.
        changes: what the config says otherwise than when the run was last saved, a line each.
        notes: what was decided, and how, a line each.
        detector: the network, on its device.
    """

    trainer: Trainer
    config: ExperimentConfig
    reports: dict[str, DatasetReport]
    load_report: LoadReport | None
    differences: tuple[str, ...]
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    detector: RetinaNet


def build_experiment(
    config: ExperimentConfig,
    *,
    resume: bool = False,
    quiet: bool = False,
    without: Sequence[str] = (),
) -> Experiment:
    """Put the parts of a training together and create its run folder.

    Args:
        config: the experiment.
        resume: go on from the run folder's last checkpoint, or begin where there is none.
        quiet: print nothing.
        without: instruments that shall not look on, by the names of their packages.

    Raises:
        UserError: data, weights, device or run folder are not as the config says.
    """
    device = pick_device(config.device)
    check_run_folder(config.output_dir, resume=resume)
    point = find_resume_point(config.output_dir / LAST_STATE) if resume else None
    config = decide(config, device, point)
    changes = () if point is None else changes_since(point, to_yaml(config))
    check_shares(config.training)
    check_frozen(config.model)
    barrier()  # no rank may create the folder before all have looked at it
    seed_everything(config.seed, deterministic=config.training.deterministic)

    train = build_dataset(config, "train")
    train.augmentation = config.augmentation.build()
    check_objective(config, train.categories)
    counts = train.class_counts() if config.objective.classification.needs_class_counts else None
    detector, load_report, differences = build_detector(config, train.categories)
    notes: tuple[str, ...] = ()
    if config.training.batch_size == "auto":
        config, note = decide_batch_size(
            config,
            detector=detector,
            dataset=train,
            batch_sampler=build_batch_sampler(
                config, train, world_size() * config.training.accumulation_steps
            ),
            class_counts=counts,
            device=device,
        )
        notes = (note,)
    validation = None
    if config.dataset.validation is not None:
        validation = build_dataset(config, "validation", categories=train.categories)
    batch_sampler = build_batch_sampler(config, train, config.training.decided_batch_size)
    setup = TrainingSetup(
        config=config,
        train=train,
        validation=validation,
        class_counts=counts,
        forward=build_forward(config, detector.to(device), counts, device),
        total_steps=min(
            batch_sampler.num_batches * config.training.epochs,
            config.training.max_steps or batch_sampler.num_batches * config.training.epochs,
        ),
    )
    make_folder(config.output_dir)
    if is_main_process():
        remove_parts(config.output_dir)
    trainer = _build_trainer(
        setup, batch_sampler, resume=resume, resume_from=point, quiet=quiet, without=without
    )
    if is_main_process():
        write_text(config.output_dir / "config.yaml", to_yaml(config))
    splits = {"train": train} | ({} if validation is None else {"validation": validation})
    reports = {name: split.report for name, split in splits.items()}
    return Experiment(trainer, config, reports, load_report, differences, changes, notes, detector)


def _build_trainer(
    setup: TrainingSetup,
    batch_sampler: BatchSampler,
    *,
    resume: bool,
    resume_from: ResumePoint | None,
    quiet: bool,
    without: Sequence[str],
) -> Trainer:
    config, forward = setup.config, setup.forward
    training, device = config.training, forward.device
    step = TrainingStep(
        forward, config.optimizer.build(forward.detector), clip_norm=training.clip_norm
    )
    divergence = DivergenceWatch(training.on_divergence, step)
    hooks: list[Hook] = [divergence]
    evaluated = forward.detector
    if training.average_decay is not None:
        average = WeightAverage(forward.detector, training.average_decay)
        hooks.append(average)
        evaluated = average.module
    hooks.append(
        UnreadableImages(
            config.output_dir / "unreadable_images.jsonl", limit=setup.train.max_unreadable
        )
    )
    hooks.append(EarlyStopping(training.early_stopping_evaluations))
    if setup.validation is not None:
        hooks.append(ValidationImages(setup.validation, training.pictures))
    hooks += instrument_hooks(setup, without)
    run = TrainingRun(
        folder=RunFolder(config.output_dir, _artifact_maker(config, setup.train.categories)),
        detector=forward.detector,
        evaluated=evaluated,
        total_steps=setup.total_steps,
        steps_per_epoch=batch_sampler.num_batches,
        hooks=hooks,
    )
    peak_lr = peak_learning_rate(config.optimizer, training.decided_batch_size)
    lr_factor = config.schedule.build(setup.total_steps)
    return Trainer(
        run=run,
        batches=TrainingBatches(
            dataset=setup.train,
            sampler=batch_sampler,
            loader=config.loader,
            collate=Collate(config.preprocess.size_divisor, config.preprocess.pad_to),
            num_workers=training.num_workers,
            num_micro_batches=training.accumulation_steps,
            pin_memory=device.type == "cuda",
        ),
        learning_rate=lambda number: peak_lr * lr_factor(number),
        checkpoints=Checkpoints(
            path=run.folder.last_state,
            identity=RunIdentity(
                to_yaml(config), fingerprint(setup.train), batch_sampler.num_batches
            ),
            config=training,
            step=step,
            meter=StepMeter(device),
            validation=_build_validation(setup, evaluated),
        ),
        divergence=divergence,
        config=training,
        resume=resume,
        resume_from=resume_from,
        quiet=quiet,
    )


def _build_validation(setup: TrainingSetup, evaluated: RetinaNet) -> Validation:
    config, forward = setup.config, setup.forward
    evaluator = None
    if setup.validation is not None:
        evaluator = Evaluator(
            setup.validation,
            batch_size=config.evaluation.batch_size,
            num_workers=config.training.num_workers,
            loader=config.loader,
            pin_memory=forward.device.type == "cuda",
            backend=config.evaluation.backend,
        )
    runtime = TorchRuntime(
        evaluated,
        categories=setup.train.categories,
        preprocess=forward.preprocess,
        postprocess=config.postprocess.build(evaluated.box_coder),
        device=forward.device,
        precision=forward.precision,
        memory_fix="lower evaluation.batch_size, or preprocess.min_size and max_size",
    )
    return Validation(evaluator, runtime, forward.criterion)


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


def _artifact_maker(config: ExperimentConfig, categories: Categories) -> MakeArtifact:
    def make(
        trained: RetinaNet, facts: dict[str, float | int], threshold: float | None
    ) -> Artifact:
        return make_artifact(
            trained,
            model=config.model,
            preprocess=config.preprocess,
            postprocess=config.postprocess,
            categories=categories,
            training=facts,
            display_threshold=threshold,
        )

    return make


def decide(
    config: ExperimentConfig, device: torch.device, point: ResumePoint | None
) -> ExperimentConfig:
    """The config with what the machine decides written into it.

    What was decided when the run began stays: a run that goes on elsewhere is still the same run.
    """
    precision, batch_size = config.training.precision, config.training.batch_size
    if point is not None:
        before = point.config().get("training", {})
        precision = before.get("precision", precision) if precision == "auto" else precision
        batch_size = before.get("batch_size", batch_size) if batch_size == "auto" else batch_size
    if batch_size == "auto":  # decided once the detector is there
        check_auto_batch(device)
    precision = pick_precision(precision, device)
    training = config.training.model_copy(update={"precision": precision, "batch_size": batch_size})
    return config.model_copy(update={"training": training})


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
    dataset: DetectionDataset = part.build(
        categories=categories,
        antialias=config.preprocess.antialias,
        check_images=check_images,
        unknown_categories=unknown_categories,
        # A score that left images out would not be comparable.
        max_unreadable=config.loader.max_unreadable if split == "train" else 0,
    )
    return dataset


def build_detector(
    config: ExperimentConfig, categories: Categories
) -> tuple[RetinaNet, LoadReport | None, tuple[str, ...]]:
    """The network for these classes, with pretrained weights where the config names some.

    Returns:
        The network; what became of each weight of ``model.initialize_from``; and the settings of
        model and preprocessing that differ from that file's, since weights that fit by shape may
        still mean something else.
    """
    source = config.model.initialize_from
    if source is None:
        return config.model.build(len(categories)), None, ()
    artifact = load_artifact(source)
    detector = config.model.without_pretrained_weights().build(len(categories))
    theirs, ours = (
        _architecture(whole.model, whole.preprocess) for whole in (artifact.config, config)
    )
    told = tuple(
        f"{key}: {there} there, {here} here"
        for key, (there, here) in differences(theirs, ours).items()
        if NOT_SET not in (there, here)
    )
    return detector, load_matching(detector, artifact.state_dict), told


def _architecture(model: ModelConfig, preprocess: PreprocessConfig) -> Tree:
    return {
        "model": model.without_pretrained_weights().model_dump(mode="json"),
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


def build_artifact_evaluator(
    artifact: Artifact,
    dataset: DetectionDataset,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "fp32",
    max_detections: int | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    backend: Backend = "hotcoco",
) -> tuple[TorchRuntime, Evaluator]:
    """A saved detector on its device, and what scores it on a split.

    Args:
        artifact: the detector.
        dataset: the split, with the detector's labels.
        device: as in a config.
        precision: of the network.
        max_detections: detections of a category in an image that are made and count; None lets the
            detector make as many as it does and counts 100, as COCO does.
        batch_size: images at a time.
        num_workers: processes that load images.
        backend: the scoring engine.
    """
    where = pick_device(device)
    runtime = TorchRuntime.from_artifact(
        artifact,
        device=where,
        precision=pick_precision(precision, where),
        max_detections=max_detections,
    )
    return runtime, Evaluator(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=where.type == "cuda",
        max_detections=100 if max_detections is None else max_detections,
        backend=backend,
    )
