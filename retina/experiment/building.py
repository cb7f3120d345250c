"""The one place where the parts of an experiment are put together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from retina.artifact import Artifact, load_artifact, make_artifact
from retina.configuration import NOT_SET, Tree, differences, parse_yaml, to_yaml
from retina.datasets import DatasetConfig
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.dataset import DatasetReport, DetectionDataset
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
from retina.instruments.anatomy.hook import AnatomyHook
from retina.instruments.anatomy.measuring import trained_loss
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.loading import LoadReport, load_matching
from retina.modeling.preprocess import Preprocess, PreprocessConfig
from retina.runtime import TorchRuntime
from retina.storage import make_folder, remove_parts, write_text
from retina.structures import Categories
from retina.training.optimization import peak_learning_rate
from retina.training.resuming import ResumePoint, changes_since, find_resume_point
from retina.training.run_folder import LAST_STATE, MakeArtifact, RunFolder
from retina.training.trainer import Trainer


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
        splits: the data sets, by the split's name.
    """

    trainer: Trainer
    config: ExperimentConfig
    reports: dict[str, DatasetReport]
    load_report: LoadReport | None
    differences: tuple[str, ...]
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    detector: RetinaNet
    splits: dict[str, DetectionDataset]


def build_experiment(
    config: ExperimentConfig, *, resume: bool = False, quiet: bool = False
) -> Experiment:
    """Put the parts of a training together and create its run folder.

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
    splits: dict[str, DetectionDataset] = {"train": train}
    reports = {"train": train.report}
    counts = train.class_counts() if config.objective.classification.needs_class_counts else None
    detector, load_report, differences = build_detector(config, train.categories)
    notes: tuple[str, ...] = ()
    if config.training.batch_size == "auto":
        config, note = decide_batch_size(
            config,
            detector=detector,
            dataset=train,
            batch_sampler=_build_batch_sampler(
                config, train, world_size() * config.training.accumulation_steps
            ),
            class_counts=counts,
            device=device,
        )
        notes = (note,)
    detector = detector.to(device)
    preprocess = config.preprocess.build().to(device)
    evaluator = None
    if config.dataset.validation is not None:
        validation = build_dataset(config, "validation", categories=train.categories)
        splits["validation"] = validation
        reports["validation"] = validation.report
        evaluator = _build_evaluator(config, validation, detector, preprocess, device)
    batch_sampler = _build_batch_sampler(config, train, config.training.decided_batch_size)
    total_steps = batch_sampler.num_batches * config.training.epochs
    if config.training.max_steps is not None:
        total_steps = min(total_steps, config.training.max_steps)

    make_folder(config.output_dir)
    if is_main_process():
        remove_parts(config.output_dir)
    criterion = config.objective.build(detector.box_coder, class_counts=counts).to(device)
    trainer = Trainer(
        detector=detector,
        criterion=criterion,
        preprocess=preprocess,
        dataset=train,
        fingerprint=fingerprint(train),
        batch_sampler=batch_sampler,
        loader=config.loader,
        evaluator=evaluator,
        make_runtime=lambda evaluated: TorchRuntime(
            evaluated,
            categories=train.categories,
            preprocess=preprocess,
            postprocess=config.postprocess.build(evaluated.box_coder),
            device=device,
            precision=pick_precision(config.training.precision, device),
            display_threshold=0.3,
            memory_fix="lower evaluation.batch_size, or preprocess.min_size and max_size",
        ),
        optimizer=config.optimizer.build(detector),
        peak_lr=peak_learning_rate(config.optimizer, config.training.decided_batch_size),
        lr_factor=config.schedule.build(total_steps),
        total_steps=total_steps,
        config=config.training,
        anatomy=AnatomyHook(
            detector=detector,
            class_names=train.categories.names,
            assigner=criterion.assigner,
            parameters=trained_loss(config.objective, counts).parameters,
            every_steps=config.training.anatomy_every_steps,
            total_steps=total_steps,
            device=device,
        ),
        precision=pick_precision(config.training.precision, device),
        device=device,
        run_config=to_yaml(config),
        folder=RunFolder(config.output_dir, _artifact_maker(config, train.categories)),
        resume=resume,
        resume_from=point,
        quiet=quiet,
    )
    if is_main_process():
        write_text(config.output_dir / "config.yaml", to_yaml(config))
    return Experiment(
        trainer, config, reports, load_report, differences, changes, notes, detector, splits
    )


def _build_batch_sampler(
    config: ExperimentConfig, train: DetectionDataset, batch_size: int
) -> BatchSampler:
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


def _build_evaluator(
    config: ExperimentConfig,
    validation: DetectionDataset,
    detector: RetinaNet,
    preprocess: Preprocess,
    device: torch.device,
) -> Evaluator:
    return Evaluator(
        validation,
        batch_size=config.evaluation.batch_size,
        num_workers=config.training.num_workers,
        loader=config.loader,
        pin_memory=device.type == "cuda",
        backend=config.evaluation.backend,
    )


def decide(
    config: ExperimentConfig, device: torch.device, point: ResumePoint | None
) -> ExperimentConfig:
    """The config with what the machine decides written into it.

    What was decided when the run began stays: a run that goes on elsewhere is still the same run.
    """
    precision, batch_size = config.training.precision, config.training.batch_size
    if point is not None:
        before = parse_yaml(point.state.config, str(point.path))["training"]
        precision = before["precision"] if precision == "auto" else precision
        batch_size = before["batch_size"] if batch_size == "auto" else batch_size
    if batch_size == "auto":  # decided once the detector is there
        check_auto_batch(device)
    precision = pick_precision(precision, device)
    training = config.training.model_copy(update={"precision": precision, "batch_size": batch_size})
    return config.model_copy(update={"training": training})


def build_dataset(
    config: ExperimentConfig, split: str, *, categories: Categories | None = None
) -> DetectionDataset:
    """A split of the experiment's data set.

    Args:
        config: the experiment.
        split: ``train``, ``validation`` or ``test``.
        categories: the labels to use, those of the training set.

    Raises:
        UserError: the config has no such split, or its files are not as they should be.
    """
    part: DatasetConfig | None = getattr(config.dataset, split, None)
    if part is None:
        raise UserError(f"the config has no dataset.{split}")
    dataset: DetectionDataset = part.build(
        categories=categories,
        antialias=config.preprocess.antialias,
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
