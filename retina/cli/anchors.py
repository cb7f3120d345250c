"""``retina data anchors``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from retina.cli.datasets import read_dataset
from retina.datasets import CocoConfig
from retina.errors import UserError
from retina.experiment import ExperimentConfig, build_dataset, load_experiment
from retina.experiment.config import SplitsConfig
from retina.instruments.doctor.anchors.proposals import propose
from retina.instruments.doctor.anchors.report import (
    advice,
    coverage_table,
    settings_table,
    write_anchor_files,
)
from retina.instruments.doctor.context import CheckContext
from retina.modeling.preprocess import PreprocessConfig
from retina.storage import make_folder


@dataclass(frozen=True, slots=True)
class AnchorsRequest:
    """The arguments of the command, by their names."""

    config: Path | None
    overrides: Sequence[str]
    images: Path | None
    annotations: Path | None
    split: Path | None
    min_size: int | None
    max_size: int | None
    output: Path | None


def run_anchors(request: AnchorsRequest) -> None:
    """Search, print the tables, and write the patch and the figure."""
    console = Console(highlight=False)
    context = _context(request)
    with console.status("searching anchors"):
        proposals = propose(context)
    console.print(coverage_table(proposals, context.train.categories).to_terminal())
    console.print()
    console.print(settings_table(proposals).to_terminal())
    console.print()
    for line in advice(proposals):
        console.print(line, markup=False, soft_wrap=True)
    if request.output is not None:
        make_folder(request.output)
        names = write_anchor_files(proposals, context, request.output)
        console.print(f"{', '.join(names)} are in {request.output}", markup=False, soft_wrap=True)


def _context(request: AnchorsRequest) -> CheckContext:
    has_data = request.images is not None and request.annotations is not None
    if (request.config is None) == (not has_data):
        raise UserError(
            "give either a CONFIG, or --images and --annotations"
            + (", not both" if has_data else "")
        )
    if request.config is not None:
        return _configured(request, request.config)
    assert request.images is not None
    assert request.annotations is not None
    train = read_dataset(request.images, request.annotations, request.split, check_images=False)
    config = ExperimentConfig(
        output_dir=Path("unused"),
        dataset=SplitsConfig(
            train=CocoConfig(images=request.images, annotations=request.annotations)
        ),
        preprocess=_sized(PreprocessConfig(), request),
    )
    return CheckContext(config, train)


def _configured(request: AnchorsRequest, path: Path) -> CheckContext:
    config = load_experiment(path, request.overrides)
    config = config.model_copy(update={"preprocess": _sized(config.preprocess, request)})
    return CheckContext(config, build_dataset(config, "train"))


def _sized(preprocess: PreprocessConfig, request: AnchorsRequest) -> PreprocessConfig:
    given = {"min_size": request.min_size, "max_size": request.max_size}
    return preprocess.model_copy(update={key: value for key, value in given.items() if value})
