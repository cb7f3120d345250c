"""``retina data anchors``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    Annotations,
    DataConfig,
    Images,
    Overrides,
    Source,
    TrainSplit,
    labelled_data,
    output_option,
)
from retina.cli.output import make_console, print_lines

if TYPE_CHECKING:
    from retina.experiment import ExperimentConfig, ResolvedData


def command(
    source: Source = None,
    overrides: Overrides = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
    min_size: Annotated[
        int | None, typer.Option("--min-size", min=1, help="Shorter side of the input (else 800).")
    ] = None,
    max_size: Annotated[
        int | None, typer.Option("--max-size", min=1, help="Limit of its longer side (else 1333).")
    ] = None,
    output: Annotated[
        Path | None, output_option("Write anchors.yaml, anchors.json and anchors.png there.")
    ] = None,
) -> None:
    """Propose anchors (sizes, scales, ratios, a level P2) with the coverage before and after.

    Example: `retina data anchors my_data.yaml --output anchors`

    Example: `retina data anchors --images photos --annotations labels.json --min-size 640
    --max-size 1066`
    """
    from retina.instruments.doctor.anchors.proposals import propose
    from retina.instruments.doctor.anchors.report import (
        advice,
        coverage_table,
        settings_table,
        write_anchor_files,
    )
    from retina.instruments.doctor.context import CheckContext
    from retina.storage import make_folder

    if source is not None and "=" in str(source) and not source.exists():
        source, overrides = None, [str(source), *(overrides or [])]
    console = make_console()
    resolved = labelled_data(source, annotations, images, config, split, overrides or ())
    sizes = {"min_size": min_size, "max_size": max_size}
    context = CheckContext(_experiment(resolved, sizes), resolved.dataset)
    with console.status("searching anchors"):
        proposals = propose(context)
    console.print(coverage_table(proposals, resolved.dataset.categories).to_terminal())
    console.print()
    console.print(settings_table(proposals).to_terminal())
    console.print()
    print_lines(console, *advice(proposals))
    if output is not None:
        make_folder(output)
        names = write_anchor_files(proposals, context, output)
        print_lines(console, f"{', '.join(names)} are in {output}")


def _experiment(resolved: ResolvedData, sizes: dict[str, int | None]) -> ExperimentConfig:
    """The config that the data is of, or the defaults; with the sizes that the options name."""
    from retina.experiment import ExperimentConfig
    from retina.experiment.config import SplitsConfig

    config = resolved.config or ExperimentConfig(
        output_dir=Path("unused"), dataset=SplitsConfig(train=resolved.part)
    )
    given = {key: value for key, value in sizes.items() if value}
    return config.model_copy(update={"preprocess": config.preprocess.model_copy(update=given)})
