"""``retina compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import Data, DataConfig, output_option, split_option
from retina.cli.output import make_console, print_lines, progress

if TYPE_CHECKING:
    from retina.datasets import DetectionDataset
    from retina.evaluation.comparison import Comparison, SideSource


def command(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            metavar="EVALUATION",
            help="Two or more evaluation folders, run folders or results files.",
            show_default=False,
        ),
    ],
    annotations: Annotated[
        list[Path] | None,
        typer.Option(
            "--annotations",
            help="Annotation file or folder, of any format; several times for several.",
        ),
    ] = None,
    data: Data = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", help="The folder of their images, or one for each."),
    ] = None,
    config: DataConfig = None,
    split: Annotated[str | None, split_option("validation, in a folder test")] = None,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(
            "--fail-if-worse",
            min=0,
            metavar="X",
            help="Exit with 1 where the AP of the last is more than X below the first's, as "
            "measured (not the end of its interval, which is printed).",
        ),
    ] = None,
    output: Annotated[
        Path | None, output_option("Write comparison.json and comparison.html here.")
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--resamples",
            min=100,
            help="Of the images, for the intervals: 1000, fewer where detections are very many.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same intervals.")] = 0,
) -> None:
    """Say whether one evaluation is really better than another, and where.

    Each is compared with the first: all numbers with intervals (the images are drawn again and
    again, the same for all), what one finds and the other misses, the images that changed most,
    and by how much scores and boxes have moved. All must be scored against the same truth. The
    folders say which; --annotations or --data says it for results files, and where it has moved.

    Example: `retina compare runs/first runs/second --output compared`

    Example: `retina compare old.json new.json --annotations val.json --fail-if-worse 0.01`
    """
    from retina.evaluation.comparison import (
        compare,
        find_sides,
        read_sides,
        shared_truth,
        write_comparison,
    )
    from retina.evaluation.comparison.summary import (
        agreement_lines,
        few_images_lines,
        heading,
        tables,
    )

    console = make_console()
    sources = find_sides(evaluations)
    annotated = annotations or ()
    named = _named_truth(sources, annotated, data, images or (), config, split)
    dataset = shared_truth(sources, named)
    with progress(console, "reading and resampling", 2 * len(sources)) as advance:
        sides = read_sides(sources, dataset, on_progress=advance)
        comparison = compare(
            sides,
            dataset,
            truth_name=_truth_name(sources, annotated, data, config, split),
            num_resamples=resamples,
            seed=seed,
            on_progress=advance,
        )
    print_lines(console, *heading(comparison))
    for compared in comparison.pairs:
        console.print()
        for table in tables(comparison, compared):
            console.print(table.to_terminal())
            console.print()
        print_lines(console, *few_images_lines(compared), *agreement_lines(compared))
    console.print()
    print_lines(console, *(compared.pair.sentence for compared in comparison.pairs))
    if output is not None:
        write_comparison(output, comparison, dataset)
        print_lines(console, f"written to {output}")
    if fail_if_worse is not None:
        _check(comparison, fail_if_worse)


def _named_truth(
    sources: Sequence[SideSource],
    annotations: Sequence[Path],
    data: Path | None,
    images: Sequence[Path],
    config: Path | None,
    split: str | None,
) -> DetectionDataset | None:
    """The data set that the options name, with the classes that were scored; None for none."""
    from retina.errors import UserError
    from retina.evaluation.comparison import recorded_truth
    from retina.evaluation.folder import joined_config, read_as_scored
    from retina.evaluation.scored_images import folder_of_each
    from retina.experiment import DataOptions, resolve_data

    if not annotations and data is None and config is None:
        if images or split is not None:
            raise UserError("--images and --split need --annotations, --data or --config")
        return None
    record = recorded_truth(sources)
    categories = None if record is None else record.scored_categories
    named: Sequence[Path | None] = annotations or (None,)
    resolved = [
        resolve_data(
            DataOptions(source=data, annotations=file, images=folder, config=config, split=split),
            purpose="what was scored against",
            categories=categories,
            check_images=False,
            unknown_categories="leave_out",
        )
        for file, folder in zip(named, folder_of_each(named, images), strict=True)
    ]
    if len(resolved) == 1:
        return resolved[0].dataset
    return read_as_scored(joined_config([one.part for one in resolved]), categories)


def _truth_name(
    sources: Sequence[SideSource],
    annotations: Sequence[Path],
    data: Path | None,
    config: Path | None,
    split: str | None,
) -> str:
    """What the data set is called: by the options, else on record."""
    from retina.evaluation.comparison import recorded_truth

    named = ", ".join(map(str, annotations)) or data or config
    if named is not None:
        return str(named) if split is None else f"{named}, {split}"
    record = recorded_truth(sources)
    assert record is not None  # else there is no data set
    return record.name


def _check(comparison: Comparison, most: float) -> None:
    """End with 1 where the last is worse than the first by more than ``most`` AP.

    Raises:
        UserError: nothing could be scored, so that nothing can be said.
    """
    from retina.errors import UserError

    pair = comparison.pairs[-1].pair
    change = pair.ap.change
    if change is None:
        raise UserError("--fail-if-worse: the truth has no object, so there is no AP to compare")
    told = (
        f"--fail-if-worse {most:g}: the AP of {pair.second} is {change:+.4f} from that of "
        f"{pair.first}"
    )
    if change < -most:
        typer.echo(f"{told}: worse", err=True)
        raise SystemExit(1)
    typer.echo(f"{told}: passed")
