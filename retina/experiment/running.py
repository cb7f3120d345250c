"""Training and evaluating in one call, for programs: ``retina.train`` and ``retina.evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from retina.devices import PrecisionChoice, pick_device
from retina.distributed import is_main_process, process_group
from retina.errors import RunError, UserError, count_given, path_given
from retina.evaluation.engines import BATCH_SIZE, DEFAULT_BACKEND, Backend
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.experiment.building import Experiment, build_experiment
from retina.experiment.config import ExperimentConfig, load_experiment
from retina.experiment.data import DataOptions, resolve_data
from retina.experiment.reporting import report_training
from retina.modeling.detector_names import detector_given
from retina.prediction.predictor import Predictor, load
from retina.training.progress import TrainingProgress
from retina.training.trainer import TrainingOutcome


def train(
    config: ExperimentConfig | Path | str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    quiet: bool = False,
    on_start: Callable[[Experiment], None] | None = None,
) -> TrainingOutcome:
    """Train a detector; the files are in the config's ``output_dir``.

    Seeds the global random generators. While it runs, SIGINT and SIGTERM end it after a checkpoint;
    the outcome says so. Where worker processes are spawned (macOS, Windows) a script must call this
    below ``if __name__ == "__main__":``.

    Args:
        config: a config file, or what `load_experiment` made of one.
        overrides: ``dotted.path=value`` each; only with a file.
        resume: go on from the run folder's last checkpoint, or begin where there is none.
        quiet: print nothing.
        on_start: called on every rank with what is about to run.

    Raises:
        UserError: config, data, weights, device or run folder are not as they should be.
        RunError: the machine or the run failed; the last checkpoint is intact. `DivergedError` is
            one: the loss or the weights are not finite.
    """
    if not isinstance(config, ExperimentConfig):
        config = load_experiment(config, overrides)
    elif overrides:
        raise UserError("overrides change a config file; give them to load_experiment")
    minutes = config.training.collective_timeout_minutes
    with process_group(pick_device(config.device).type, timeout_minutes=minutes):
        experiment = build_experiment(config, resume=resume, quiet=quiet)
        if on_start is not None:
            on_start(experiment)
        else:
            for line in (*experiment.changes, *experiment.notes):
                TrainingProgress(0, quiet=quiet or not is_main_process()).message(line)
        outcome, is_main = experiment.trainer.run(), is_main_process()
    if outcome.signal is not None or not is_main:
        return outcome
    # After the group is gone: what one process does alone must wait for no other.
    return replace(outcome, report=_reported(experiment, quiet=quiet))


def _reported(experiment: Experiment, *, quiet: bool) -> Path | None:
    """The report of a training; one that cannot be made takes nothing from the detectors."""
    try:
        return report_training(experiment)
    except (UserError, RunError) as error:
        TrainingProgress(0, quiet=quiet).message(
            f"warning: no report was written: {error}. The detectors are complete; "
            "make one with retina evaluate"
        )
        return None


def evaluate(
    detector: Predictor | Path | str,
    *,
    data: Path | str | None = None,
    annotations: Path | str | None = None,
    images: Path | str | None = None,
    config: Path | str | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: PrecisionChoice = "fp32",
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    backend: Backend = DEFAULT_BACKEND,
    on_progress: Callable[[int], None] | None = None,
) -> EvaluationResult:
    """Score a detector with the COCO numbers.

    Args:
        detector: a detector file, the name of a published one, or what `retina.load` made of one.
        data: a folder or file that holds the data: see `DataOptions`.
        annotations: instead, a COCO file, or a folder of Pascal VOC's files; with ``images``.
        images: the folder of its images.
        config: instead, the config that names the data.
        split: of the folder or config: ``train``, ``validation`` or ``test``; None takes a folder's
            test, else validation, and a config's validation.
        device: of a detector file; a `Predictor` has its own.
        precision: likewise.
        batch_size: images at a time.
        num_workers: processes that load images.
        backend: the scoring engine; both give the same numbers.
        on_progress: called with the number of images done since the last call.

    Returns:
        ``metrics`` (``AP``, ``AP50``, … and ``per_category``), and the detections by image.

    Raises:
        UserError: the detector or the data cannot be read, or it is not said which data is meant.
        RunError: memory ran out, or a process that loads images failed.
    """
    batch_size = count_given(batch_size, "batch_size", least=1)
    num_workers = count_given(num_workers, "num_workers", least=0)
    source = None if isinstance(detector, Predictor) else detector_given(detector, "detector")
    file = source if isinstance(source, Path) else None  # which may lie in a run
    if file is None and data is None and annotations is None and config is None:
        raise UserError("say what to evaluate on: data, annotations with images, or a config")
    if isinstance(detector, Predictor):
        predictor = detector
    else:
        predictor = load(detector, device=device, precision=precision)
    resolved = resolve_data(
        DataOptions(
            source=_path(data, "data"),
            annotations=_path(annotations, "annotations"),
            images=_path(images, "images"),
            config=_path(config, "config"),
            split=split,
            detector=file,
        ),
        purpose="what to evaluate on",
        categories=predictor.categories,
        unknown_categories="leave_out",
    )
    evaluator = Evaluator(
        resolved.dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        backend=backend,
    )
    return evaluator.run(predictor.runtime, on_progress=on_progress)


def _path(given: Path | str | None, argument: str) -> Path | None:
    return None if given is None else path_given(given, argument)
