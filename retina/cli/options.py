"""The options that several commands have, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from retina.devices import PrecisionChoice
    from retina.experiment import ResolvedData
    from retina.modeling.detector_names import DetectorSource
    from retina.runtime import Views
    from retina.structures import Categories

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The experiment, a YAML file.", show_default=False)
]
DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="Folder or annotation file, of any format.", show_default=False
    ),
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="No pretrained weights, and no network.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
]
DeviceOfConfig = Annotated[str | None, typer.Option("--device", help="Short for device=…")]

DETECTOR = (
    "A detector file (.safetensors), a published one by its name (coco_v1, coco_v2), or an export "
    "(.onnx, .xml, .pt2) where detections are enough."
)
Detector = Annotated[str, typer.Argument(metavar="DETECTOR", help=DETECTOR)]

_SOURCE = "Config, annotation file or folder: see the README."
Source = Annotated[Path | None, typer.Argument(metavar="SOURCE", help=_SOURCE)]
Data = Annotated[Path | None, typer.Option("--data", metavar="SOURCE", help=_SOURCE)]
Annotations = Annotated[
    Path | None,
    typer.Option("--annotations", help="Annotation file or folder, of any format."),
]
Images = Annotated[Path | None, typer.Option("--images", help="The folder of their images.")]
DataConfig = Annotated[
    Path | None, typer.Option("--config", help="Take the data set from this config.")
]


def split_option(default: str) -> Any:
    """``--split``, whose help names what is taken without it."""
    return typer.Option(
        "--split",
        help=f"train, validation or test (by default {default}); with --annotations a file that "
        "lists image names.",
    )


EverySplit = Annotated[str | None, split_option("all")]
TrainSplit = Annotated[str | None, split_option("train")]
ScoredSplit = Annotated[str | None, split_option("validation, in a folder test")]


def output_option(files: str) -> Any:
    """``--output``, of a command that writes these files."""
    return typer.Option("--output", help=files)


BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")]
NumWorkers = Annotated[
    int, typer.Option("--num-workers", min=0, help="Processes that load images.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]
Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps, cpu.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, fp16, or auto (bf16 where it is fast).")
]

Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network first: for many images of few sizes."),
]

Tile = Annotated[
    int | None,
    typer.Option("--tile", help="Look at overlapping tiles of this many pixels, too."),
]
Overlap = Annotated[
    float | None,
    typer.Option("--overlap", help="Part of a tile that its neighbour sees, too (0.2)."),
]
NoFullImage = Annotated[
    bool, typer.Option("--no-full-image", help="With --tile: tiles alone, not the whole image.")
]
TestTime = Annotated[
    str | None,
    typer.Option("--test-time", help="Look at mirrored and scaled images, too: flip,0.8,1.2."),
]
MergeOption = Annotated[
    str, typer.Option("--merge", help="Boxes of several views: nms (the best), weighted (mean).")
]


def views_given(
    tile: int | None, overlap: float | None, no_full_image: bool, test_time: str | None, merge: str
) -> Views:
    """What the options say a detector looks at beside the plain image.

    Raises:
        UserError: an option has no right value, or goes with one that is not given.
    """
    from retina.errors import UserError, one_of
    from retina.geometry.fusion import Merge
    from retina.runtime import Views
    from retina.runtime.tiled import OVERLAP
    from retina.runtime.views import parse_test_time

    if tile is None and (overlap is not None or no_full_image):
        option = "--no-full-image" if overlap is None else "--overlap"
        raise UserError(f"{option} says how to look at tiles: give their size with --tile 640")
    flip, scales = parse_test_time([] if test_time is None else test_time.split(","))
    return Views(
        tile=tile,
        overlap=OVERLAP if overlap is None else overlap,
        full_image=not no_full_image,
        flip=flip,
        scales=scales,
        merge=one_of(merge, get_args(Merge), "--merge"),
    )


_KEYS = {
    "training.num_workers=0": "--num-workers 0",
    "training.num_workers": "--num-workers",
    ", loader.prefetch_factor or training.batch_size": " or --batch-size",
    " or loader.prefetch_factor": "",
    " (loader.timeout)": "",
    "raise loader.timeout; ": "copy them to a faster one; ",
}
"""What stands for a key of a config in a command that has options instead."""


def in_options(text: str, words: Sequence[str]) -> str:
    """An error message in the words of the command that was called.

    The layers below know the keys of a config alone; a command without one has options for some.

    Args:
        text: the message.
        words: the command line without the program's name.
    """
    if words[:1] not in (["evaluate"], ["loss"], ["thresholds"]):
        return text
    for key, option in _KEYS.items():
        text = text.replace(key, option)
    return text


def with_device(overrides: list[str] | None, device: str | None) -> list[str]:
    """The changes of a config, ``--device`` among them."""
    return [*(overrides or []), *([] if device is None else [f"device={device}"])]


def chosen_precision(text: str) -> PrecisionChoice:
    """What ``--precision`` says.

    Raises:
        UserError: there is no such precision.
    """
    from retina.devices import PrecisionChoice
    from retina.errors import one_of

    chosen: PrecisionChoice = one_of(text, get_args(PrecisionChoice), "--precision")
    return chosen


def parse_alpha(text: str, where: str) -> float | None:
    """An α of the focal loss, None for ``none``.

    Args:
        text: of an option.
        where: the option, for the message.

    Raises:
        UserError: it is neither ``none`` nor a number between 0 and 1.
    """
    from retina.errors import UserError
    from retina.losses.focal_parameters import check_alpha

    try:
        alpha = None if text == "none" else float(text)
        check_alpha(alpha)
    except ValueError as error:
        raise UserError(f"{where}: write a number in (0, 1), or none ({error})") from None
    return alpha


def labelled_data(
    source: Path | None,
    annotations: Path | None,
    images: Path | None,
    config: Path | None,
    split: str | None,
    overrides: Sequence[str] = (),
) -> ResolvedData:
    """The data set of a command that looks at labels, by default the training split.

    Raises:
        UserError: see `resolve_data`.
    """
    from retina.experiment import DataOptions, resolve_data

    options = DataOptions(
        source=source,
        annotations=annotations,
        images=images,
        config=config,
        split=split,
        overrides=overrides,
        source_option="SOURCE",
    )
    return resolve_data(options, purpose="which data", default_split="train", check_images=False)


def labelled_splits(
    source: Path | None,
    annotations: Path | None,
    images: Path | None,
    config: Path | None,
    split: str | None,
) -> dict[str, ResolvedData]:
    """All splits of the data of a command that looks at labels, or the one that is named.

    Raises:
        UserError: see `resolve_splits`.
    """
    from retina.experiment import DataOptions, resolve_splits

    options = DataOptions(
        source=source,
        annotations=annotations,
        images=images,
        config=config,
        split=split,
        source_option="SOURCE",
    )
    return resolve_splits(options, purpose="which data", check_images=False)


def scored_data(
    detector: DetectorSource,
    categories: Categories,
    data: Path | None,
    annotations: Path | None,
    images: Path | None,
    config: Path | None,
    split: str | None,
    *,
    purpose: str,
) -> ResolvedData:
    """The data set that a detector is run on, by default the validation of its file's run.

    Annotations of classes that the detector does not have are left out.

    Raises:
        UserError: see `resolve_data`.
    """
    from retina.experiment import DataOptions, resolve_data

    options = DataOptions(
        source=data,
        annotations=annotations,
        images=images,
        config=config,
        split=split,
        detector=detector if isinstance(detector, Path) else None,
    )
    return resolve_data(
        options, purpose=purpose, categories=categories, unknown_categories="leave_out"
    )
