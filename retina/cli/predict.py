"""``retina predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    BatchSize,
    Compile,
    Detector,
    Device,
    Images,
    MergeOption,
    NoFullImage,
    Overlap,
    Precision,
    Resume,
    TestTime,
    Tile,
    chosen_precision,
    output_option,
    views_given,
)
from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from retina.prediction.files import PredictionRun
    from retina.prediction.predictor import Predictor
    from retina.prediction.sources import FoundImages


def command(
    detector: Detector,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images, folders, globs, data sets, videos, lists (@FILE, or - for the standard "
            "input), URLs.",
        ),
    ],
    output: Annotated[Path, output_option("Folder for what is written.")],
    save: Annotated[
        str,
        typer.Option(
            "--save", help="What is written: pictures, json, crops, yolo, voc, csv, coco."
        ),
    ] = "pictures,json",
    images: Images = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Of a data set (by default test, else validation)."),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            min=0.0,
            max=1.0,
            help="Keep detections from this score on; by default from those kept in the detector.",
        ),
    ] = None,
    stride: Annotated[
        int, typer.Option("--stride", min=1, help="Of a video take every so many frames.")
    ] = 1,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch the images of http(s) sources.")
    ] = False,
    tile: Tile = None,
    overlap: Overlap = None,
    no_full_image: NoFullImage = False,
    test_time: TestTime = None,
    merge: MergeOption = "nms",
    resume: Resume = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    precision: Precision = "fp32",
    compiled: Compile = False,
) -> None:
    """Find objects in images and videos: writes annotated pictures and one detections.json.

    A picture has the size of its image: small ones are enlarged, and those with a side of more than
    8192 pixels made smaller. Of a video a video is written.

    An annotation file, or a folder that is a data set, stands for the images that it lists: their
    ids in detections.json are then those of the annotations, else they count the images.

    For small objects in large images, --tile 640 looks at tiles of 640 pixels and at the whole; a
    large TIFF is read tile by tile. An image that is no larger than a tile is not cut.

    A broken image is reported and the rest goes on; the exit code is then 1. So is a picture that
    cannot be written: its objects are in detections.json. Several processes (torchrun) share the
    images.

    Example: `retina predict runs/demo/checkpoints/best.safetensors photos/ --output found`

    Example, with nothing trained: `retina predict coco_v2 photo.jpg --output found`
    """
    from retina.devices import pick_device
    from retina.distributed import done_by_main, sharing_processes
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, taken_for
    from retina.prediction.files import PredictionOptions, predict_files
    from retina.prediction.predictor import load
    from retina.prediction.sources import SourceOptions, find_images
    from retina.runtime.detection_log import file_sha256

    kinds = _kinds(save)
    views = views_given(tile, overlap, no_full_image, test_time, merge)
    source = detector_given(detector, "DETECTOR")
    with sharing_processes(pick_device(device).type):
        console = make_console()
        predictor = load(
            detector, device=device, precision=chosen_precision(precision), compiled=compiled
        )
        predictor = predictor.looking_at(views, batch_size=batch_size)
        print_lines(console, *taken_for(source))
        reading = SourceOptions(images, split, stride, allow_urls)
        found = done_by_main(lambda: find_images(sources, reading))
        _print_found(console, found, output, resume=resume)
        options = PredictionOptions(
            save=kinds,
            score_threshold=score_threshold,
            batch_size=batch_size,
            resume=resume,
            settings={
                "detector": file_sha256(file_of(source)),
                "precision": precision,
                **({"compiled": True} if compiled else {}),
                "views": views.to_json(),
                "batch size": batch_size,  # images of several sizes are padded to one
            },
        )
        with progress(console, "predicting", len(found.inputs)) as advance:
            run = predict_files(
                predictor,
                found.inputs,
                output,
                ids=found.ids or None,
                options=options,
                on_progress=advance,
            )
    if run is not None:
        scores = _scores(predictor, score_threshold)
        _print_run(console, run, f"{' and '.join(kinds)} in {output}", scores)


def _kinds(save: str) -> tuple[str, ...]:
    """What ``--save`` asks for, each once."""
    from retina.errors import UserError, one_of
    from retina.prediction.outputs import KINDS

    words = [word.strip() for word in save.split(",") if word.strip()]
    if not words:
        raise UserError(f"--save: says nothing to write; choose of {', '.join(KINDS)}")
    return tuple(dict.fromkeys(one_of(word, KINDS, "--save") for word in words))


def _print_found(console: Console, found: FoundImages, output: Path, *, resume: bool) -> None:
    from retina.runtime.detection_log import UNFINISHED, stopped_run

    print_lines(console, *found.notes)
    if found.passed_over:
        shown = ", ".join(found.passed_over[:3]) + (" …" if len(found.passed_over) > 3 else "")
        what = (
            "file that is no image" if len(found.passed_over) == 1 else "files that are no images"
        )
        print_lines(console, f"passed over: {len(found.passed_over)} {what} ({shown})")
    print_lines(console, *stopped_run(output / UNFINISHED, resume=resume))


def _print_run(console: Console, run: PredictionRun, written: str, scores: str) -> None:
    """Say what was found.

    Raises:
        SystemExit: with 1, where something failed.
    """
    from rich.console import Console

    print_lines(
        console,
        f"{counted(run.num_detections, 'object')} {scores} in "
        f"{counted(run.num_images, 'image')}; {written}",
    )
    if run.failures:
        print_lines(
            Console(stderr=True, highlight=False, emoji=False),
            f"{counted(len(run.failures), 'failure')}:",
            *(f"  {failure}" for failure in run.failures),
        )
        raise SystemExit(1)


def _scores(predictor: Predictor, given: float | None) -> str:
    """From which scores on objects were kept."""
    if given is not None:
        return f"from a score of {given:.2f} on"
    least, most = (float(value) for value in predictor.thresholds.aminmax())
    if least == most:
        return f"from a score of {least:.2f} on"
    return f"from their class's score on ({least:.2f} to {most:.2f})"
