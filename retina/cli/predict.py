"""``retina predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    BatchSize,
    Detector,
    Device,
    Images,
    MergeOption,
    NoFullImage,
    Overlap,
    Precision,
    TestTime,
    Tile,
    chosen_precision,
    output_option,
    views_given,
)
from retina.cli.output import make_console, print_lines, progress
from retina.wording import counted

if TYPE_CHECKING:
    from retina.prediction.predictor import Predictor


def command(
    detector: Detector,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Image files, folders or globs; annotation files, data sets."
        ),
    ],
    output: Annotated[Path, output_option("Folder for the pictures and detections.json.")],
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
    tile: Tile = None,
    overlap: Overlap = None,
    no_full_image: NoFullImage = False,
    test_time: TestTime = None,
    merge: MergeOption = "nms",
    batch_size: BatchSize = 8,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Find objects in images: writes annotated pictures and one detections.json.

    A picture has the size of its image: small ones are enlarged, and those with a side of more than
    8192 pixels made smaller.

    An annotation file, or a folder that is a data set, stands for the images that it lists: their
    ids in detections.json are then those of the annotations, else they count the images.

    For small objects in large images, --tile 640 looks at tiles of 640 pixels and at the whole; a
    large TIFF is read tile by tile. An image that is no larger than a tile is not cut.

    A broken image is reported and the rest goes on; the exit code is then 1. So is a picture that
    cannot be written: its objects are in detections.json.

    Example: `retina predict runs/demo/checkpoints/best.safetensors photos/ --output found`

    Example, with nothing trained: `retina predict coco_v2 photo.jpg --output found`
    """
    from rich.console import Console

    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import taken_for
    from retina.prediction.files import predict_files
    from retina.prediction.predictor import load
    from retina.prediction.sources import find_images

    console = make_console()
    views = views_given(tile, overlap, no_full_image, test_time, merge)
    source = detector_given(detector, "DETECTOR")
    predictor = load(detector, device=device, precision=chosen_precision(precision))
    predictor = predictor.looking_at(views, batch_size=batch_size)
    print_lines(console, *taken_for(source))
    found = find_images(sources, images=images, split=split)
    print_lines(console, *found.notes)
    if found.passed_over:
        shown = ", ".join(found.passed_over[:3]) + (" …" if len(found.passed_over) > 3 else "")
        what = (
            "file that is no image" if len(found.passed_over) == 1 else "files that are no images"
        )
        print_lines(console, f"passed over: {len(found.passed_over)} {what} ({shown})")
    with progress(console, "predicting", len(found.paths)) as advance:
        run = predict_files(
            predictor,
            found.paths,
            output,
            image_ids=found.ids,
            score_threshold=score_threshold,
            batch_size=batch_size,
            on_progress=advance,
        )
    print_lines(
        console,
        f"{counted(run.num_detections, 'object')} {_told(predictor, score_threshold)} in "
        f"{counted(run.num_images, 'image')}; pictures and detections.json in {output}",
    )
    if run.failures:
        print_lines(
            Console(stderr=True, highlight=False, emoji=False),
            f"{counted(len(run.failures), 'failure')}:",
            *(f"  {failure}" for failure in run.failures),
        )
        raise SystemExit(1)


def _told(predictor: Predictor, given: float | None) -> str:
    """From which scores on objects were kept."""
    if given is not None:
        return f"from a score of {given:.2f} on"
    least, most = (float(value) for value in predictor.thresholds.aminmax())
    if least == most:
        return f"from a score of {least:.2f} on"
    return f"from their class's score on ({least:.2f} to {most:.2f})"
