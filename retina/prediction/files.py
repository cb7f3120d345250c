"""Predicting on images, and what is written about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retina.distributed import barrier, done_by_main, is_main_process, rank, world_size
from retina.errors import RunError, UserError
from retina.prediction.inputs import Input, free_stems
from retina.prediction.outputs import (
    DATA_SETS,
    DEFAULT,
    IMAGE_OUTPUTS,
    RUN_OUTPUTS,
    ImageFiles,
    Place,
    Results,
)
from retina.prediction.predictor import Predictor
from retina.prediction.share import Share
from retina.runtime.detection_log import UNFINISHED, DetectionLog
from retina.storage import make_folder
from retina.structures import OriginalId
from retina.wording import counted

_NOT_MIXED = ("crops", *DATA_SETS)
"""Outputs of many files, where those of an earlier run would be taken for some of this one."""


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """What predicting gave, over all processes.

    Attributes:
        num_images: images and frames that were predicted on.
        num_detections: over all of them.
        failures: one message for each image that could not be read, or about which something could
            not be written.
    """

    num_images: int
    num_detections: int
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How to predict on files.

    Attributes:
        save: what to write: of `retina.prediction.outputs.KINDS`.
        score_threshold: as for `Predictor.predict`.
        batch_size: images that the network sees at a time.
        resume: go on with a run that was stopped, if there is one.
        settings: what else decides what is found, by names for people: a run is only gone on with
            where these are the same.
    """

    save: Sequence[str] = DEFAULT
    score_threshold: float | None = None
    batch_size: int = 8
    resume: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: Path,
    *,
    ids: Sequence[OriginalId] | None = None,
    options: PredictionOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> PredictionRun | None:
    """Predict on images and videos, and write what is asked for.

    Decoding, the network, drawing and writing overlap; about three batches of images are in memory.
    An image that cannot be read is one of the failures, and the rest goes on; so is a picture that
    cannot be made, and what was found is in the JSON all the same. Where the run breaks off, the
    JSON holds what was found until then, and the folder `UNFINISHED` what is needed to go on.

    In a process group the inputs are shared, each is predicted on once, and the main process writes
    what is about all of them.

    Args:
        predictor: finds the objects.
        inputs: what to predict on.
        output: the folder to write into.
        ids: of each input, each once; None counts the images from 1.
        options: how; None for the defaults.
        on_progress: called with the number of inputs that this process has done since the last
            call; in another thread.

    Returns:
        What it gave; None in a process that is not the main one.

    Raises:
        UserError: a picture would replace an image, a data set or crops are there already, the
            folder may not be written, or the run to go on with is another one.
        RunError: memory ran out, or the disk is full.
    """
    options = options or PredictionOptions()
    place = Place(
        folder=output,
        work=output / UNFINISHED,
        inputs=inputs,
        stems=free_stems(inputs),
        categories=predictor.categories,
    )
    done_by_main(lambda: _prepare(place, options))
    log = DetectionLog.begin(
        place.work, _settings(inputs, options, predictor), resume=options.resume
    )
    kinds = [IMAGE_OUTPUTS[name] for name in options.save if name in IMAGE_OUTPUTS]
    if set(options.save) & set(DATA_SETS):
        kinds.append(ImageFiles)
    share = Share(
        predictor,
        place,
        log,
        [kind(place) for kind in kinds],
        score_threshold=options.score_threshold,
        batch_size=options.batch_size,
        on_progress=on_progress,
    )
    remaining = [item for item in range(len(inputs)) if item not in log.done]
    results = Results(place, log, ids, has_more=bool(remaining))
    try:
        share.predict(remaining[rank() :: world_size()])
        log.close()  # for those who read it on another machine
        barrier()
    except BaseException:
        log.close()
        if is_main_process() and "json" in options.save:
            RUN_OUTPUTS["json"](results)
        raise
    return _write_all(results, options.save) if is_main_process() else None


def _write_all(results: Results, save: Sequence[str]) -> PredictionRun:
    """Write what is about all images, and take away what was kept to go on with.

    One that cannot be written does not keep the others from being written.

    Raises:
        UserError: something may not be written; all failures are told as well.
        RunError: what another process has found has not arrived here, or the disk is full.
    """
    num_lost = len(results.place.inputs) - len(results.log.items_known())
    if num_lost:
        raise RunError(
            f"{results.log.folder}: another process should have written there about "
            f"{counted(num_lost, 'input')}, and nothing has arrived; go on with --resume"
        )
    problems: list[UserError | RunError] = []
    for name in RUN_OUTPUTS:  # JSON first: nothing else is needed for it
        if name in save:
            try:
                RUN_OUTPUTS[name](results)
            except (UserError, RunError) as error:
                problems.append(error)
    run = _summary(results, [name for name in save if name in DATA_SETS])
    if problems:
        raise _as_one(problems, run.failures)
    results.log.remove()
    return run


def _summary(results: Results, data_sets: Sequence[str]) -> PredictionRun:
    num_images = num_detections = 0
    failures = []
    for one in results.log.images():
        num_images += one.is_read
        num_detections += len(one.found)
        failures += [one.failure] if one.failure else []
    if data_sets and (num_without := num_images - sum(1 for _ in results.images_with_files())):
        failures.append(
            f"{' and '.join(data_sets)}: {counted(num_without, 'image')} left out, of which there "
            "is no file"
        )
    return PredictionRun(num_images, num_detections, tuple(failures))


def _as_one(
    problems: Sequence[UserError | RunError], failures: Sequence[str]
) -> UserError | RunError:
    """What kept outputs from being written, and the failures, which nothing else tells then."""
    kind = RunError if any(isinstance(one, RunError) for one in problems) else UserError
    told = "\n".join(map(str, problems))
    if failures:
        told += "\n".join(
            [f"\n{counted(len(failures), 'failure')}:", *(f"  {f}" for f in failures)]
        )
    return kind(told)


def _prepare(place: Place, options: PredictionOptions) -> None:
    sources = {one.source.resolve() for one in place.inputs if one.source is not None}
    pictures = (place.folder / f"{stem}{end}" for stem in place.stems for end in (".jpg", ".mp4"))
    if "pictures" in options.save and any(path.resolve() in sources for path in pictures):
        raise UserError(
            f"{place.folder}: what is written would replace what is read; choose another folder"
        )
    make_folder(place.folder)
    there = [name for name in options.save if name in _NOT_MIXED and (place.folder / name).exists()]
    was_stopped = DetectionLog(place.work).is_there
    if there and not (options.resume and was_stopped):
        kinds = "crops" if there == ["crops"] else "data sets"
        go_on = "go on with --resume, " if was_stopped else ""
        raise UserError(
            f"{place.folder}: holds {', '.join(there)} already, and {kinds} are not mixed; "
            f"{go_on}choose another folder, or remove what is there"
        )


def _settings(
    inputs: Sequence[Input], options: PredictionOptions, predictor: Predictor
) -> dict[str, object]:
    """What must be the same where a run goes on, by names for people."""
    names = hashlib.sha256()
    for one in inputs:
        names.update(f"{one.identity}\0".encode(errors="surrogateescape"))
    threshold = options.score_threshold
    return {
        "inputs": names.hexdigest(),
        "outputs": sorted(options.save),
        "scores": predictor.thresholds.tolist() if threshold is None else threshold,
        "classes": list(predictor.categories.names),
        **options.settings,
    }
