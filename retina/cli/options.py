"""The options that several commands have, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The experiment, a YAML file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes of single keys of the config."),
]
DeviceOfConfig = Annotated[str | None, typer.Option("--device", help="Short for device=…")]

DetectorPath = Annotated[
    Path, typer.Argument(metavar="DETECTOR", help="A detector file (.safetensors).")
]

_SOURCE = (
    "A folder laid out as its format is (annotations.json and images/, Pascal VOC's Annotations/ "
    "and JPEGImages/, …), or with train/, validation/, test/ of this kind; an annotation file; or "
    "a config (.yaml)."
)
Source = Annotated[Path | None, typer.Argument(metavar="SOURCE", help=_SOURCE)]
Data = Annotated[Path | None, typer.Option("--data", metavar="SOURCE", help=_SOURCE)]
Annotations = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        help="A COCO file, a folder of Pascal VOC XML files, or what another format reads …",
    ),
]
Images = Annotated[Path | None, typer.Option("--images", help="… and the folder of the images.")]
DataConfig = Annotated[
    Path | None, typer.Option("--config", help="Take the data set from this config.")
]


def split_option(default: str) -> Any:
    """``--split``, whose help names what is taken without it."""
    return typer.Option(
        "--split",
        help="train, validation or test, of a config or a folder; with --annotations the file that "
        "lists the image names of Pascal VOC.",
        show_default=default,
    )


TrainSplit = Annotated[str | None, split_option("train")]
ScoredSplit = Annotated[str | None, split_option("validation; in a folder test, else validation")]


def output_option(files: str) -> Any:
    """``--output``, of a command that writes these files."""
    return typer.Option("--output", help=files)


BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")]
NumWorkers = Annotated[
    int, typer.Option("--num-workers", min=0, help="Processes that load images.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps, cpu.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, fp16, or auto (bf16 where it is fast).")
]


def with_device(overrides: list[str] | None, device: str | None) -> list[str]:
    """The changes of a config, ``--device`` among them."""
    return [*(overrides or []), *([] if device is None else [f"device={device}"])]
