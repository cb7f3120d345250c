"""The runs of a tuning: one common start, one normal run folder each, never done twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from retina.artifact import make_artifact
from retina.configuration import apply_override, validate
from retina.errors import DivergedError, UserError
from retina.experiment import (
    ExperimentConfig,
    build_dataset,
    build_detector,
    build_experiment,
)
from retina.experiment.checks import check_frozen, seed_everything
from retina.experiment.parts import find_origin
from retina.instruments.tuning.grid import Cell, GridConfig
from retina.storage import write_text


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run ended; kept in its folder as ``outcome.json``.

    Attributes:
        reason: why it diverged; empty where it came through.
        seconds: of training steps and their data since it was last resumed.
    """

    reason: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether it has nothing to be scored."""
        return bool(self.reason)


class TuningStoppedError(Exception):
    """A signal has stopped a run, which has written a checkpoint."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def base_config(config: ExperimentConfig, grid: GridConfig) -> ExperimentConfig:
    """What all runs have in common: the experiment with the grid's budget.

    The validation set is scored once, at the end, so that no run is the best of several looks at
    the images on which it is compared.

    Raises:
        UserError: the experiment has no validation set, another loss than the focal loss, or a
            frozen backbone that was never trained.
    """
    check_frozen(config.model)  # the runs have a file of weights to start from, and would pass it
    if config.dataset.validation is None:
        raise UserError(
            "tuning compares runs on the validation set: give dataset.validation in the config"
        )
    loss = config.objective.classification
    if loss.kind != "focal":
        raise UserError(
            "objective.classification.kind: tuning is about γ and α of the focal loss, this is "
            f"'{loss.kind}'; set objective.classification.kind=focal"
        )
    budget = {name: value for name, value in grid.budget.model_dump().items() if value is not None}
    if "epochs" in budget:
        budget["min_steps"] = None
    training = config.training.model_copy(update=budget)
    once = {  # no training has more epochs than that
        "evaluate_every_epochs": max(training.epochs, training.min_steps or 1),
        "evaluations": None,
        "early_stopping_evaluations": None,
    }
    return config.model_copy(update={"training": training.model_copy(update=once)})


def start_weights(base: ExperimentConfig, seed: int, folder: Path) -> Path:
    """The detector file that every run with this seed starts from; made once."""
    path = folder / f"start_seed{seed}.safetensors"
    if not path.exists():
        seed_everything(seed)
        categories = build_dataset(base, "train").categories
        detector, _, _ = build_detector(base, categories)
        artifact = make_artifact(
            detector,
            model=base.model,
            preprocess=base.preprocess,
            postprocess=base.postprocess,
            categories=categories,
            pretrained=find_origin(base),
        )
        artifact.save(path)
    return path


def run_folder(folder: Path, cell: Cell, seed: int) -> Path:
    """Where a run of the tuning lies."""
    return folder / "runs" / cell.name / f"seed{seed}"


def run_config(base: ExperimentConfig, cell: Cell, seed: int, folder: Path) -> ExperimentConfig:
    """The experiment of one run."""
    tree = base.model_dump(mode="json")
    start = start_weights(base, seed, folder)
    for override in cell.overrides:
        tree = apply_override(tree, override)
    tree["model"]["initialize_from"] = str(start)
    tree["seed"] = seed
    tree["output_dir"] = str(run_folder(folder, cell, seed))
    return validate(tree, ExperimentConfig, source=f"the run {cell.name}")


def run_once(config: ExperimentConfig) -> RunRecord:
    """Train, or go on with a training that was stopped, or say how it ended before.

    A run that diverges is an outcome, too: it would do so again.

    Raises:
        TuningStoppedError: a signal came; the run can be resumed.
        RunError: the machine failed (disk full, a worker killed); the run can be resumed.
    """
    record_path = config.output_dir / "outcome.json"
    if record_path.exists():
        return RunRecord(**json.loads(record_path.read_text(encoding="utf-8")))
    try:
        outcome = build_experiment(config, resume=True, without=("doctor",)).trainer.run()
    except DivergedError as error:
        record = RunRecord(reason=str(error), seconds=0.0)
    else:
        if outcome.signal is not None:
            raise TuningStoppedError(outcome.signal)
        record = RunRecord(reason="", seconds=round(outcome.seconds, 1))
    write_text(record_path, json.dumps(asdict(record), ensure_ascii=False) + "\n")
    return record
