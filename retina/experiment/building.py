"""The one place where the parts of an experiment are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retina.artifact import Artifact, make_artifact
from retina.configuration import to_yaml
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import Collate
from retina.devices import pick_device, pick_precision
from retina.distributed import barrier, done_by_main, is_main_process, world_size
from retina.evaluation.evaluator import Evaluator
from retina.experiment.batch_size import check_auto_batch, decide_batch_size
from retina.experiment.checks import (
    check_frozen,
    check_loggers,
    check_objective,
    check_run_folder,
    check_shares,
    seed_everything,
)
from retina.experiment.config import ExperimentConfig
from retina.experiment.parts import (
    build_batch_sampler,
    build_dataset,
    build_detector,
    find_origin,
    fingerprint,
)
from retina.experiment.setup import TrainingSetup, build_forward, instrument_hooks
from retina.modeling.detector import RetinaNet
from retina.modeling.loading import LoadReport
from retina.modeling.pretrained import WeightOrigin
from retina.modeling.thresholds import ThresholdsConfig
from retina.runtime import TorchRuntime
from retina.storage import make_folder, remove_parts, write_text
from retina.structures import Categories
from retina.training.batches import TrainingBatches
from retina.training.checkpointing import Checkpoints, RunIdentity
from retina.training.config import TrainingConfig
from retina.training.hooks.averaging import WeightAverage
from retina.training.hooks.divergence import DivergenceWatch
from retina.training.hooks.early_stopping import EarlyStopping
from retina.training.hooks.loggers import Loggers
from retina.training.hooks.unreadable_images import UnreadableImages
from retina.training.hooks.validation_images import ValidationImages
from retina.training.meter import StepMeter
from retina.training.optimization import peak_learning_rate, settling_step
from retina.training.resuming import (
    ResumePoint,
    changes_since,
    find_resume_point,
    where_it_begins,
)
from retina.training.run import Hook, TrainingRun
from retina.training.run_folder import CONFIG, LAST_STATE, MakeArtifact, RunFolder
from retina.training.step import TrainingStep
from retina.training.trainer import Trainer
from retina.training.validation import Validation
from retina.wording import counted


@dataclass(frozen=True)
class Experiment:
    """A training that is ready to run.

    Attributes:
        trainer: runs it.
        config: with everything decided that the config left open.
        datasets: the splits, by name.
        load_report: what was taken from ``model.initialize_from``, or None.
        differences: what the file that it starts from says otherwise, a line each.
        changes: what the config says otherwise than when the run was last saved, a line each.
        notes: what was decided, and how, a line each.
        detector: the network, on its device.
    """

    trainer: Trainer
    config: ExperimentConfig
    datasets: dict[str, DetectionDataset]
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
    notes = where_it_begins(config.output_dir, point) if resume else ()
    check_shares(config.training)
    done_by_main(lambda: check_loggers(config.training))
    check_frozen(config.model)
    barrier()  # no rank may create the folder before all have looked at it
    seed_everything(config.seed, deterministic=config.training.deterministic)

    train = build_dataset(config, "train")
    train.augmentation = config.augmentation.build()
    check_objective(config, train.categories)
    counts = train.class_counts() if config.objective.classification.needs_class_counts else None
    # The checkpoint has the weights: those to start from may lie elsewhere by now.
    start = config if point is None else config.without_start_weights()
    detector, load_report, differences = build_detector(start, train.categories)
    origin = find_origin(config) if point is None else point.origin()
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
        notes += (note,)
    validation = None
    if config.dataset.validation is not None:
        validation = build_dataset(config, "validation", categories=train.categories)
    batch_sampler = build_batch_sampler(config, train, config.training.decided_batch_size)
    notes += _told_length(config.training, batch_sampler.num_batches)
    setup = TrainingSetup(
        config=config,
        train=train,
        validation=validation,
        class_counts=counts,
        forward=build_forward(config, detector.to(device), counts, device),
        total_steps=config.training.total_steps(batch_sampler.num_batches),
    )
    make_folder(config.output_dir)
    if is_main_process():
        remove_parts(config.output_dir)
    trainer = _build_trainer(
        setup,
        batch_sampler,
        origin=origin,
        resume=resume,
        resume_from=point,
        quiet=quiet,
        without=without,
    )
    if is_main_process():
        write_text(config.output_dir / CONFIG, to_yaml(config))
    splits = {"train": train} | ({} if validation is None else {"validation": validation})
    return Experiment(trainer, config, splits, load_report, differences, changes, notes, detector)


def _told_length(training: TrainingConfig, steps_per_epoch: int) -> tuple[str, ...]:
    """A line where the training is longer than its epochs."""
    steps, of_epochs = training.total_steps(steps_per_epoch), training.epochs * steps_per_epoch
    if steps <= of_epochs:
        return ()
    return (
        f"{counted(steps, 'step')}, {steps / steps_per_epoch:.4g} passes over the images, for "
        f"training.min_steps; those of training.epochs are {of_epochs}",
    )


def _build_trainer(
    setup: TrainingSetup,
    batch_sampler: BatchSampler,
    *,
    origin: WeightOrigin | None,
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
    average = (
        WeightAverage(forward.detector, training.average_decay)
        if training.average_decay is not None
        else None
    )
    evaluated = forward.detector if average is None else average.module
    lr_factor = config.schedule.build(setup.total_steps)
    settled = settling_step(lr_factor, setup.total_steps)
    hooks: list[Hook | None] = [  # in the order in which they are called
        # Before all that log.
        Loggers(training.loggers, config.model_dump(mode="json")) if training.loggers else None,
        divergence,
        average,
        UnreadableImages(
            config.output_dir / "unreadable_images.jsonl", limit=setup.train.max_unreadable
        ),
        EarlyStopping(training.early_stopping_evaluations, counts_from=settled),
        ValidationImages(setup.validation, training.pictures)
        if setup.validation is not None
        else None,
        *instrument_hooks(setup, without),
    ]
    run = TrainingRun(
        folder=RunFolder(
            config.output_dir,
            _artifact_maker(config, setup.train.categories, origin),
            config.dataset.validation,
        ),
        detector=forward.detector,
        evaluated=evaluated,
        total_steps=setup.total_steps,
        steps_per_epoch=batch_sampler.num_batches,
        hooks=[hook for hook in hooks if hook is not None],
    )
    peak_lr = peak_learning_rate(config.optimizer, training.decided_batch_size)
    meter, validation = StepMeter(device), _build_validation(setup, evaluated)
    return Trainer(
        run=run,
        step=step,
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
        meter=meter,
        validation=validation,
        checkpoints=Checkpoints(
            path=run.folder.last_state,
            identity=RunIdentity(
                to_yaml(config), fingerprint(setup.train), batch_sampler.num_batches, origin
            ),
            config=training,
            step=step,
            meter=meter,
            validation=validation,
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


def _artifact_maker(
    config: ExperimentConfig, categories: Categories, origin: WeightOrigin | None
) -> MakeArtifact:
    def make(
        trained: RetinaNet, facts: dict[str, float | int], thresholds: ThresholdsConfig | None
    ) -> Artifact:
        return make_artifact(
            trained,
            model=config.model,
            preprocess=config.preprocess,
            postprocess=config.postprocess,
            categories=categories,
            training=facts,
            thresholds=thresholds,
            pretrained=origin,
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
    wanted = precision
    precision = done_by_main(lambda: pick_precision(wanted, device))  # it may be measured
    training = config.training.model_copy(update={"precision": precision, "batch_size": batch_size})
    return config.model_copy(update={"training": training})
